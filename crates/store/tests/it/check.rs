//! Checking: each kind of damage is named, and what it breaks.

use crate::support::{Fixture, mixed, options};
use firn_store::{CacheRow, CheckReport, Entry, FindingKind, Meaning, Store};
use firn_testkit::damage::{flip_bit, flip_bits, frames, halve, packs};
use std::path::Path;

fn explain(_: &CacheRow, entry: &Entry, _: &[firn_store::BlobInfo]) -> Meaning {
    Meaning {
        name: Some(format!("entry {}", entry.key)),
        ..Meaning::default()
    }
}

fn check(store: &Store, data: bool) -> CheckReport {
    let options = firn_store::DataOptions::default();
    let data = data.then_some(&options);
    store.check(data, &explain, &mut |_| true).unwrap()
}

/// A store with two entries, closed; each entry's chunks lie in a pack of its own.
fn closed() -> tempfile::TempDir {
    let fixture = Fixture::with(|options| options.pack_bytes_target = 1);
    for (index, key) in ["one", "two"].iter().enumerate() {
        let blob = fixture.ingest(&mixed(index as u64 + 1, 40_000)).unwrap();
        fixture.publish(key, &[blob.id]);
    }
    let Fixture { store, dir, .. } = fixture;
    store.close().unwrap();
    assert!(packs(dir.path()).len() >= 2);
    dir
}

fn found(report: &CheckReport) -> Vec<(FindingKind, Vec<String>)> {
    let findings = report.findings.iter();
    findings
        .map(|finding| (finding.kind, finding.breaks.clone()))
        .collect()
}

fn checked(dir: &Path, data: bool) -> CheckReport {
    assert_eq!(Store::inspect(dir).unwrap(), []);
    let store = Store::open(options(dir)).unwrap();
    check(&store, data)
}

#[test]
fn a_sound_store_has_no_findings_open_or_closed() {
    let dir = closed();
    let report = checked(dir.path(), true);
    assert_eq!(found(&report), []);
    assert_eq!(report.entries, 2);
    assert!(report.bytes_read > 0 && report.segments > 0 && report.blobs == 2);

    let fixture = Fixture::new();
    let blob = fixture.ingest(&mixed(1, 2_000_000)).unwrap();
    fixture.publish("open", &[blob.id]);
    assert_eq!(found(&check(&fixture.store, true)), []);
}

#[test]
fn a_flipped_bit_is_found_by_reading_data() {
    let dir = closed();
    let pack = &packs(dir.path())[0];
    let (offset, length) = frames(pack)[0];
    flip_bit(pack, offset + length / 2);
    assert_eq!(found(&checked(dir.path(), false)), []);
    let report = checked(dir.path(), true);
    assert_eq!(report.chunks_quarantined, 1);
    let [finding] = report.findings.as_slice() else {
        panic!("{:?}", report.findings);
    };
    assert_eq!(finding.kind, FindingKind::ChunkDamaged);
    assert_eq!(finding.breaks_total, 1);
    // It stays a finding until it is healed.
    assert_eq!(checked(dir.path(), false).findings.len(), 1);
}

#[test]
fn lost_cut_and_foreign_packs_are_named() {
    let dir = closed();
    let all = packs(dir.path());
    std::fs::remove_file(&all[0]).unwrap();
    halve(&all[1]);
    std::fs::write(all[0].with_file_name("stray"), b"x").unwrap();
    let report = checked(dir.path(), false);
    let mut kinds: Vec<FindingKind> = report.findings.iter().map(|finding| finding.kind).collect();
    kinds.sort_by_key(|kind| kind.name());
    assert_eq!(
        kinds,
        [
            FindingKind::Orphan,
            FindingKind::PackLength,
            FindingKind::PackLost
        ]
    );
    let lost = report
        .findings
        .iter()
        .find(|finding| finding.kind == FindingKind::PackLost)
        .unwrap();
    assert_eq!(lost.breaks.len(), 1, "{lost:?}");
    assert!(report.chunks_quarantined >= 2);
    assert!(report.is_damaged());
}

#[test]
fn a_damaged_trailer_and_a_damaged_segment_are_named_and_nothing_breaks() {
    let dir = closed();
    let pack = &packs(dir.path())[0];
    let length = std::fs::metadata(pack).unwrap().len();
    flip_bit(pack, length - 70);
    let segments = crate::support::files(&dir.path().join("segments"));
    flip_bit(&segments[0], 200);
    let report = checked(dir.path(), true);
    assert_eq!(
        found(&report),
        [
            (FindingKind::PackIndex, vec![]),
            (FindingKind::Segment, vec![])
        ]
    );
}

#[test]
fn what_no_segment_tells_is_named() {
    let dir = closed();
    for segment in crate::support::files(&dir.path().join("segments")) {
        std::fs::remove_file(segment).unwrap();
    }
    let report = checked(dir.path(), false);
    assert_eq!(found(&report), [(FindingKind::Untold, vec![])]);
}

#[test]
fn half_a_database_and_other_versions_are_named_before_anything_is_opened() {
    let inspect = |change: &dyn Fn(&Path)| {
        let dir = closed();
        change(dir.path());
        let found = Store::inspect(dir.path()).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        (found[0].kind, found[0].detail.clone())
    };
    let version = |text: &'static str| {
        inspect(&move |dir| std::fs::write(dir.join("VERSION"), text).unwrap())
    };
    assert_eq!(
        version("firn-store 0\n"),
        (
            FindingKind::Version,
            "the folder has format 0; this program knows 1".to_owned()
        )
    );
    assert_eq!(
        version("firn-store 2\n"),
        (
            FindingKind::Version,
            "the folder has format 2; this program knows 1".to_owned()
        )
    );
    let half = inspect(&|dir| halve(&dir.join("firn.db")));
    assert_eq!(half.0, FindingKind::Database);
    assert!(half.1.starts_with("it is damaged: "), "{half:?}");
    let none = inspect(&|dir| std::fs::remove_file(dir.join("firn.db")).unwrap());
    assert_eq!(none, (FindingKind::Database, "it is not here".to_owned()));
    assert_eq!(
        inspect(&|dir| std::fs::remove_file(dir.join("VERSION")).unwrap()).0,
        FindingKind::Version
    );
}

#[test]
fn a_rebuild_after_damage_keeps_what_is_whole() {
    let dir = closed();
    flip_bits(dir.path(), 1);
    checked(dir.path(), true);
    std::fs::remove_file(&packs(dir.path())[0]).unwrap();
    halve(&dir.path().join("firn.db"));
    let report = Store::rebuild(&options(dir.path())).unwrap();
    assert_eq!((report.entries, report.entries_dropped), (1, 1));
    assert_eq!(found(&checked(dir.path(), true)), []);
}
