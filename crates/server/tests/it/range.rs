//! Ranges of NARs, as a client resumes.

use crate::http::Client;
use crate::samples::{Upload, noise};
use firn_formats::nix::{Compression, NarInfo};
use firn_testkit::TestServer;

#[test]
fn parts_put_together_are_the_whole() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let upload = Upload::new("ranged", &noise(8, 700_000), &[], Compression::Zstd);
    upload.push(&admin).expect(201);
    let narinfo = NarInfo::parse(&admin.get(&upload.narinfo_path()).text()).unwrap();
    for path in [
        format!("/main/{}", narinfo.url),
        format!("/main/nar/{}.nar", narinfo.nar_hash.base32()),
    ] {
        let whole = admin.get(&path).expect(200);
        assert_eq!(whole.header("accept-ranges"), Some("bytes"));
        assert_eq!(whole.header("content-encoding"), None);
        let length = whole.body.len();
        for (range, first, end) in [
            ("bytes=0-0".to_owned(), 0, 1),
            ("bytes=100000-".to_owned(), 100_000, length),
            ("bytes=65535-65537".to_owned(), 65_535, 65_538),
            ("bytes=-17".to_owned(), length - 17, length),
            (
                format!("bytes={}-{}", length - 1, length + 5),
                length - 1,
                length,
            ),
        ] {
            let part = admin
                .send("GET", &path, &[("range", &range)], &[])
                .expect(206);
            assert_eq!(part.body, whole.body[first..end], "{range}");
            let expected = format!("bytes {first}-{}/{length}", end - 1);
            assert_eq!(part.header("content-range"), Some(expected.as_str()));
        }
        let beyond = format!("bytes={length}-");
        let refused = admin
            .send("GET", &path, &[("range", &beyond)], &[])
            .expect(416);
        let expected = format!("bytes */{length}");
        assert_eq!(refused.header("content-range"), Some(expected.as_str()));
        let head = admin.head(&path).expect(200);
        assert_eq!(
            head.header("content-length"),
            Some(length.to_string().as_str())
        );
        assert!(head.body.is_empty());
    }
}
