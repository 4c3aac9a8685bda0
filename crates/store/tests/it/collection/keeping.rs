//! What stays and what goes.

use super::*;
use firn_store::{IfExists, NewEntry};

#[test]
fn with_everything_deleted_no_pack_and_no_row_is_left() {
    let mut fixture = unleased();
    for key in 0..20_u64 {
        fixture.put(&key.to_string(), &[key, key + 1, 1000]);
    }
    fixture.unpin();
    let before = collect(&fixture.store);
    assert_eq!(
        (before.chunks_condemned, before.packs_deleted),
        (0, 0),
        "{before:?}"
    );
    assert_eq!(before.chunks_total, 22);
    for key in 0..20_u64 {
        fixture.check(&key.to_string(), &[key, key + 1, 1000]);
        fixture.delete(&key.to_string());
    }
    let plan = fixture.store.plan_collection(&eager(), &|_| true).unwrap();
    assert_eq!(
        fixture.store.stats().unwrap().chunks,
        22,
        "a plan changes nothing"
    );
    let after = collect(&fixture.store);
    assert_eq!((after.blobs_dropped, after.chunks_condemned), (20, 22));
    let figures = |report: &CollectionReport| {
        (
            report.blobs_dropped,
            report.chunks_condemned,
            report.bytes_condemned,
            report.packs_deleted,
        )
    };
    assert_eq!(figures(&plan), figures(&after));
    assert!(pack_files(fixture.dir.path()).is_empty());
    for table in [
        "chunks",
        "blobs",
        "blob_lists",
        "packs",
        "entries",
        "entry_blobs",
    ] {
        assert_eq!(fixture.count(table), 0, "{table}");
    }
    // And the store goes on.
    fixture.put("again", &[1, 2]);
    fixture.check("again", &[1, 2]);
}

#[test]
fn rule_5_what_is_pinned_or_leased_or_shared_stays() {
    let mut fixture = Fixture::new();
    // Pinned by a session: chunks of no blob.
    let (sent, _) = frames(&[piece(1)], 1);
    fixture
        .store
        .put_frames(&fixture.session, sent.clone())
        .unwrap();
    // Leased: a blob that no entry names, of a session that has ended.
    let other = fixture.store.session_open(&fixture.cache).unwrap();
    let leased = put_pieces(&fixture.store, &other, &[2]);
    fixture.store.session_close(&other.id).unwrap();
    // Shared by an entry that goes and one that stays.
    let shared = fixture.put("stays", &[3]);
    fixture.publish("goes", &[shared]);
    fixture.delete("goes");
    let report = collect(&fixture.store);
    assert_eq!(report.chunks_condemned, 0, "{report:?}");
    fixture.unpin();
    let report = collect(&fixture.store);
    assert_eq!((report.chunks_condemned, report.chunks_total), (1, 3));
    assert!(fixture.store.blob(leased).unwrap().is_some());
    fixture.check("stays", &[3]);
    let missing = fixture.store.pin(&fixture.session, &[sent[0].record().id]);
    assert_eq!(missing.unwrap(), [true]);
}

fn leased_entry(kind: EntryKind, key: &str, blob: BlobId) -> NewEntry {
    NewEntry {
        kind,
        lease: Some(Duration::ZERO),
        ..entry(key, &[blob])
    }
}

#[test]
fn an_entry_whose_lease_ended_stays_while_one_that_lasts_names_its_blob() {
    let fixture = unleased();
    let cache = fixture.cache.id;
    let (named, unnamed) = (
        put_pieces(&fixture.store, &fixture.session, &[1]),
        put_pieces(&fixture.store, &fixture.session, &[2]),
    );
    let mut entries = Vec::new();
    for (key, blob) in [("named", named), ("unnamed", unnamed)] {
        // Two leased ones must not keep each other.
        entries.push(leased_entry(EntryKind::RegistryBlob, key, blob));
        entries.push(leased_entry(EntryKind::Layer, key, blob));
    }
    entries.push(NewEntry {
        kind: EntryKind::Manifest,
        ..entry("image@sha256:1", &[named])
    });
    fixture
        .store
        .publish(None, cache, publication(entries))
        .unwrap();
    // That of another cache keeps nothing here.
    let foreign = fixture.store.cache_create("other", "public", b"").unwrap();
    let digest = leased_entry(EntryKind::RegistryBlob, "named", named);
    fixture
        .store
        .publish(None, foreign.id, publication(vec![digest]))
        .unwrap();
    let report = collect(&fixture.store);
    assert_eq!(report.entries_expired, 3, "{report:?}");
    let found = |cache, kind, key| fixture.store.entry(cache, kind, key).unwrap().is_some();
    for (key, stays) in [("named", true), ("unnamed", false)] {
        assert_eq!(found(cache, EntryKind::RegistryBlob, key), stays);
        assert_eq!(found(cache, EntryKind::Layer, key), stays);
    }
    assert!(!found(foreign.id, EntryKind::RegistryBlob, "named"));
    assert!(fixture.store.blob(unnamed).unwrap().is_none());
    // The manifest goes: then all go.
    let publication = Publication {
        entries: Vec::new(),
        deletions: vec![(EntryKind::Manifest, "image@sha256:1".into())],
    };
    fixture.store.publish(None, cache, publication).unwrap();
    assert_eq!(collect(&fixture.store).entries_expired, 2);
    assert_eq!(fixture.count("entries"), 0);
}

#[test]
fn rule_5_present_is_said_only_of_what_the_lease_then_covers() {
    let fixture = Fixture::new();
    let blob = put_pieces(&fixture.store, &fixture.session, &[1]);
    let cache = fixture.cache.id;
    let mut short = leased_entry(EntryKind::RegistryBlob, "digest", blob);
    short.lease = Some(Duration::from_secs(1));
    fixture
        .store
        .publish(None, cache, publication(vec![short]))
        .unwrap();
    // Its blob's lease lasts for long; its own does not.
    let keys = ["digest", "nothing"];
    let present = fixture.store.renew(cache, EntryKind::RegistryBlob, &keys);
    assert_eq!(present.unwrap(), [true, false]);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(collect(&fixture.store).entries_expired, 0);
    // To be told that an entry was kept is a promise, too.
    let name = |lease| NewEntry {
        if_exists: IfExists::Keep,
        lease,
        ..leased_entry(EntryKind::NarAlias, "name", blob)
    };
    for lease in [Duration::ZERO, Duration::from_secs(60)] {
        let new = publication(vec![name(Some(lease))]);
        fixture.store.publish(None, cache, new).unwrap();
    }
    assert_eq!(collect(&fixture.store).entries_expired, 0);
    let lasting = publication(vec![name(None)]);
    fixture.store.publish(None, cache, lasting).unwrap();
    assert_eq!(fixture.count("entries WHERE lease_until_ms IS NULL"), 1);
}

#[test]
fn a_blob_that_was_dropped_cannot_be_published_and_is_made_anew() {
    let mut fixture = unleased();
    let dropped = put_pieces(&fixture.store, &fixture.session, &[1, 2]);
    fixture.unpin();
    collect(&fixture.store);
    let refused = fixture.store.publish(
        Some(&fixture.session),
        fixture.cache.id,
        publication(vec![entry("1", &[dropped])]),
    );
    assert!(refused.is_err());
    // Other frames of the same chunks: a chunk that is sent again lies where it lies now.
    let (frames, list) = frames(&[piece(1), piece(2)], 9);
    fixture.store.put_frames(&fixture.session, frames).unwrap();
    let verifier = fixture.store.verifier(&fixture.session, list);
    let blob = fixture.store.put_blob(&fixture.session, verifier).unwrap();
    assert!(blob.id.0 > dropped.0);
    fixture.publish("1", &[blob.id]);
    collect(&fixture.store);
    fixture.check("1", &[1, 2]);
}
