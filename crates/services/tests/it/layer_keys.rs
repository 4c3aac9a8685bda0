//! What a server before the proof of layer keys has stored.

use crate::support::Fixture;
use firn_formats::Sha256;
use firn_formats::oci::Digest;
use firn_formats::push::{Begin, LayerDescriptor};
use firn_services::registry::Repository;
use firn_store::{EntryKind, IfExists, NewEntry, Publication};
use std::time::Duration;

/// An entry as it was written when whoever published a layer was believed.
fn put_believed(fixture: &Fixture, key: &str, tar: &[u8]) {
    let cache = fixture.cache();
    let digest = Digest::from(Sha256::of(tar));
    let repository = Repository {
        cache: cache.clone(),
        name: "app".to_owned(),
    };
    let registry = &fixture.services.registry;
    registry
        .upload_whole(&repository, &digest, &mut &tar[..])
        .unwrap();
    let store = &fixture.services.store;
    let blob = store
        .entry(cache.row.id, EntryKind::RegistryBlob, &digest.to_string())
        .unwrap();
    let descriptor = LayerDescriptor {
        digest: digest.to_string(),
        size: tar.len() as u64,
        diff_id: digest.to_string(),
        tar_size: tar.len() as u64,
        gzip: None,
    };
    let entry = NewEntry {
        kind: EntryKind::Layer,
        key: key.to_owned(),
        value: serde_json::to_vec(&descriptor).unwrap().into(),
        blobs: blob.unwrap().blobs,
        requires: Vec::new(),
        if_exists: IfExists::Replace,
        lease: None,
    };
    let publication = Publication {
        entries: vec![entry],
        ..Publication::default()
    };
    store.publish(None, cache.row.id, publication).unwrap();
}

#[test]
fn s1_entries_of_an_older_server_are_not_answered_from() {
    let fixture = Fixture::with_lease(Duration::from_secs(3600));
    let key = "a".repeat(64);
    put_believed(&fixture, &key, b"whatever was published first");
    let begin = Begin {
        layers: vec![key],
        ..Begin::default()
    };
    let asked = |fixture: &Fixture| {
        let push = &fixture.services.push;
        push.begin(&fixture.cache(), &begin).unwrap()
    };
    let begun = asked(&fixture);
    assert!(begun.layers.is_empty() && begun.session.is_some());
    // Nor after the database was made anew from the segments.
    let fixture = fixture.rebuilt();
    assert!(asked(&fixture).layers.is_empty());
}
