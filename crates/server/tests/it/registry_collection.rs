//! What the registry keeps, for how long, and what it gives back.

use crate::http::Client;
use crate::registry::{digest, manifest, push_blob, put_manifest};
use crate::samples::noise;
use firn_formats::oci::media_type::OCI_MANIFEST;
use firn_testkit::TestServer;
use std::time::Duration;

const CONFIG: &[u8] =
    br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
const LEASE_SECONDS: u64 = 8;
/// Of each layer here.
const LAYER_BYTES: usize = 400_000;

fn server() -> TestServer {
    TestServer::start_with(|config| {
        config.lease_seconds = LEASE_SECONDS;
        config.session_ttl_seconds = 2;
        config.gc_interval_seconds = 0;
    })
}

fn past_the_lease() {
    std::thread::sleep(Duration::from_secs(LEASE_SECONDS + 1));
}

fn layer(seed: u64) -> Vec<u8> {
    noise(seed, LAYER_BYTES)
}

fn blob_path(bytes: &[u8]) -> String {
    format!("/v2/main/app/blobs/{}", digest(bytes))
}

/// Pushes an image of these layers; its manifest's digest.
fn push(client: &Client, tag: &str, layers: &[u64]) -> String {
    let config = push_blob(client, "main/app", CONFIG);
    let layers: Vec<String> = layers
        .iter()
        .map(|seed| push_blob(client, "main/app", &layer(*seed)))
        .collect();
    let layers: Vec<_> = layers
        .iter()
        .map(|digest| (digest.as_str(), LAYER_BYTES))
        .collect();
    let bytes = manifest((&config, CONFIG.len()), &layers);
    let path = format!("/v2/main/app/manifests/{tag}");
    put_manifest(client, &path, OCI_MANIFEST, &bytes).expect(201);
    digest(&bytes)
}

#[test]
fn a_blob_without_a_manifest_is_kept_by_its_lease_and_reclaimed_after_it() {
    let server = server();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let (asked_for, forgotten) = (layer(1), layer(2));
    for blob in [&asked_for, &forgotten] {
        push_blob(&admin, "main/app", blob);
    }
    // Sessions end before leases do: it is the lease that keeps them here.
    std::thread::sleep(Duration::from_secs(LEASE_SECONDS * 3 / 4));
    server.collect();
    // Who pushes is told that it is here, and may count on that for another lease (rule 5).
    admin.head(&blob_path(&asked_for)).expect(200);
    assert_eq!(
        admin.get(&blob_path(&forgotten)).expect(200).body,
        forgotten
    );
    std::thread::sleep(Duration::from_secs(LEASE_SECONDS / 2));
    server.collect();
    assert_eq!(
        admin.get(&blob_path(&asked_for)).expect(200).body,
        asked_for
    );
    past_the_lease();
    server.collect();
    for blob in [&asked_for, &forgotten] {
        admin.head(&blob_path(blob)).expect(404);
    }
    assert_eq!(server.pack_bytes(), 0);
}

#[test]
fn a_manifest_that_is_deleted_releases_its_own_blobs_and_no_others() {
    let server = server();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let old = push(&admin, "old", &[10, 11, 12]);
    push(&admin, "new", &[11, 12, 13]);
    past_the_lease();
    server.collect();
    // Manifests keep their blobs without a lease.
    let both = server.pack_bytes();
    for seed in 10..=13 {
        let found = admin.get(&blob_path(&layer(seed))).expect(200);
        assert!(found.body == layer(seed), "{seed}");
    }
    let path = format!("/v2/main/app/manifests/{old}");
    admin.delete(&path).expect(202);
    past_the_lease();
    server.collect();
    admin.head(&blob_path(&layer(10))).expect(404);
    let freed = both - server.pack_bytes();
    let layer_bytes = LAYER_BYTES as u64;
    assert!(
        freed.abs_diff(layer_bytes) < 10_000,
        "{freed} bytes of a layer of {layer_bytes}"
    );
    admin.get("/v2/main/app/manifests/new").expect(200);
    for blob in [layer(11), layer(12), layer(13), CONFIG.to_vec()] {
        assert!(admin.get(&blob_path(&blob)).expect(200).body == blob);
    }
}
