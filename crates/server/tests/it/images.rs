//! The list of a cache's images.

use crate::http::Client;
use firn_formats::Sha256;
use firn_formats::admin::ImageView;
use firn_testkit::TestServer;

/// Anybody may list the images of a public cache: many tags of one large manifest cost what one costs, and long lists
/// come in pages.
#[test]
fn s9_images_come_in_pages_and_what_they_share_is_counted() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let blob = |bytes: &[u8]| {
        let digest = format!("sha256:{}", Sha256::of(bytes).hex());
        let path = format!("/v2/main/app/blobs/uploads/?digest={digest}");
        admin.send("POST", &path, &[], bytes).expect(201);
        serde_json::json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest,
            "size": bytes.len()})
    };
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let put = |tag: &str, layers: &[&serde_json::Value]| {
        let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": media_type, "config": layers[0],
            "layers": layers});
        let path = format!("/v2/main/app/manifests/{tag}");
        let body = serde_json::to_vec(&manifest).unwrap();
        let headers = [("content-type", media_type)];
        admin.send("PUT", &path, &headers, &body).expect(201);
    };
    let (shared, one, other) = (blob(b"shared"), blob(b"one"), blob(b"other layer"));
    for tag in ["a", "b", "c"] {
        put(tag, &[&shared, &one, &one]);
    }
    put("d", &[&shared, &other]);
    let anonymous = Client::new(&server.url(), None);
    let images = |query: &str| {
        let path = format!("/api/v1/images?cache=main{query}");
        let found: Vec<ImageView> =
            serde_json::from_slice(&anonymous.get(&path).expect(200).body).unwrap();
        found
    };
    let figures =
        |image: &ImageView| (image.tag.clone(), image.layers, image.size, image.own_bytes);
    for _ in 0..2 {
        let all: Vec<_> = images("").iter().map(figures).collect();
        assert_eq!(
            all,
            [
                ("a".to_owned(), 2, 9, 3),
                ("b".to_owned(), 2, 9, 3),
                ("c".to_owned(), 2, 9, 3),
                ("d".to_owned(), 2, 17, 11)
            ]
        );
        // One answer after the other has every image once.
        let mut paged = Vec::new();
        let mut last = String::new();
        loop {
            let page = images(&format!("&n=3{last}"));
            let Some(end) = page.last() else { break };
            last = format!("&last={}:{}", end.name, end.tag);
            paged.extend(page.iter().map(figures));
        }
        assert_eq!(paged, all);
    }
    let one_image = images("&image=app:d");
    let contents: Vec<_> = one_image[0]
        .contents
        .iter()
        .map(|layer| (layer.size, layer.other_images))
        .collect();
    assert_eq!(contents, [(6, 1), (11, 0)]);
    assert_eq!(one_image[0].own_bytes, 11);
    // An image that is gone does not count.
    admin.delete("/v2/main/app/manifests/d").expect(202);
    assert!(images("").iter().all(|image| image.own_bytes == 9));
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while server.running().services().budget.held() > 0 {
        assert!(std::time::Instant::now() < until, "something is still held");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
