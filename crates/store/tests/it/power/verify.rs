//! What must hold of a folder after a cut.

use super::life::{Change, Note, content, power_options};
use crate::support::{entry, ingest, publication, read_all};
use firn_store::{
    CollectionOptions, DataOptions, EntryKind, Meaning, Representation, Store, StoreError,
};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

/// Kinds that last once they are promised.
const LASTING: [EntryKind; 4] = [
    EntryKind::Narinfo,
    EntryKind::Manifest,
    EntryKind::Tag,
    EntryKind::ActionsEntry,
];
const LEASED: [EntryKind; 2] = [EntryKind::NarAlias, EntryKind::RegistryBlob];

type Key = (u16, String);
/// Entries that can be seen, and their values.
type Seen = BTreeMap<Key, u64>;

/// What may be seen.
struct Expected<'a> {
    /// For each key that was ever asked for, the values that it may have.
    may: BTreeMap<Key, BTreeSet<Option<u64>>>,
    /// Asked for and not promised: all of it or nothing.
    open: Vec<&'a [Change]>,
}

fn key_of(change: &Change) -> Key {
    (change.0 as u16, change.1.clone())
}

/// Of promises, those up to note `promised` count.
fn expected(notes: &[Note], promised: usize) -> Expected<'_> {
    let mut may: BTreeMap<Key, Vec<(usize, Option<u64>)>> = BTreeMap::new();
    let mut open = BTreeMap::new();
    for (number, note) in notes.iter().enumerate() {
        match note {
            Note::Asked(changes) => {
                open.insert(number, changes.as_slice());
                for change in changes.iter().filter(|change| LASTING.contains(&change.0)) {
                    let values = may.entry(key_of(change)).or_insert_with(|| vec![(0, None)]);
                    values.push((number + 1, change.2));
                }
            }
            Note::Promised(asked) if number < promised => {
                open.remove(asked);
                // Whatever was asked for before is over.
                for values in may.values_mut() {
                    if values.iter().any(|(number, _)| *number == asked + 1) {
                        values.retain(|(number, _)| *number > *asked);
                    }
                }
            }
            _ => {}
        }
    }
    let values = |values: Vec<(usize, Option<u64>)>| values.into_iter().map(|(_, value)| value);
    Expected {
        may: may
            .into_iter()
            .map(|(key, all)| (key, values(all).collect()))
            .collect(),
        open: open.into_values().collect(),
    }
}

fn seen(store: &Store) -> Seen {
    let mut seen = Seen::new();
    let Some(cache) = store.cache("main").unwrap() else {
        return seen;
    };
    for kind in LASTING.into_iter().chain(LEASED) {
        for found in store.entries(cache.id, kind, "", None, 1000).unwrap() {
            let value: u64 = std::str::from_utf8(&found.value).unwrap().parse().unwrap();
            for (index, blob) in found.blobs.iter().enumerate() {
                let seed = [value, value / 4][index];
                let read = read_all(store, *blob, Representation::Identity, None);
                let read = read.unwrap_or_else(|error| panic!("{kind:?} {}: {error:?}", found.key));
                assert!(read == content(seed), "{kind:?} {} is another", found.key);
            }
            if LASTING.contains(&kind) {
                seen.insert((kind as u16, found.key), value);
            }
        }
    }
    seen
}

fn check_seen(seen: &Seen, expected: &Expected<'_>) {
    for (key, may) in &expected.may {
        let value = seen.get(key).copied();
        assert!(
            may.contains(&value),
            "{key:?} is {value:?}, and may be {may:?}"
        );
    }
    let strangers: Vec<_> = seen
        .keys()
        .filter(|key| !expected.may.contains_key(*key))
        .collect();
    assert!(strangers.is_empty(), "nobody asked for {strangers:?}");
    for changes in &expected.open {
        // Values are never used twice, so each tells of which publication it is.
        let lasting = changes
            .iter()
            .filter(|change| LASTING.contains(&change.0) && change.2.is_some());
        let visible: Vec<bool> = lasting
            .map(|change| seen.get(&key_of(change)).copied() == change.2)
            .collect();
        let half = visible.contains(&true) && visible.contains(&false);
        assert!(!half, "half of {changes:?} is visible");
    }
}

fn check_staged(store: &Store, notes: &[Note]) {
    let ending: BTreeSet<&str> = notes
        .iter()
        .filter_map(|note| match note {
            Note::Ending(id) => Some(id.as_str()),
            _ => None,
        })
        .collect();
    // A rebuild keeps nothing of what is under way.
    let rebuilt = notes
        .iter()
        .rposition(|note| matches!(note, Note::RebuildBegun))
        .unwrap_or(0);
    for note in &notes[rebuilt..] {
        let Note::Part(id, name, seed) = note else {
            continue;
        };
        if ending.contains(id.as_str()) {
            continue;
        }
        let parts = store.staged_parts(id).unwrap();
        let part = parts.into_iter().find(|part| part.name == *name);
        let part = part.unwrap_or_else(|| panic!("part {name} of {id} is lost"));
        let mut read = Vec::new();
        let mut reader = store.staged_reader(&[part]).unwrap();
        reader.read_to_end(&mut read).unwrap();
        let whole = content(*seed);
        let (first, second) = whole.split_at(whole.len() / 2);
        assert!(
            read == [first, second][usize::from(name == "b")],
            "part {name} is another"
        );
    }
}

fn check_structure(store: &Store) {
    let report = store
        .check(
            Some(&DataOptions::default()),
            &|_, _, _| Meaning::default(),
            &mut |_| true,
        )
        .unwrap();
    assert!(!report.is_damaged(), "{:#?}", report.findings);
}

/// After a cut while `notes` were all that was said.
pub(crate) fn verify(root: &Path, notes: &[Note], more: bool) {
    let expected_now = expected(notes, usize::MAX);
    let dir = root.join("data");
    let store = match Store::open(power_options(&dir)) {
        // A rebuild was under way.
        Err(StoreError::DatabaseMissing(_)) if rebuilding(notes) => {
            Store::rebuild(&power_options(&dir)).unwrap();
            Store::open(power_options(&dir)).unwrap()
        }
        opened => opened.unwrap_or_else(|error| panic!("it does not open: {error:?}")),
    };
    let before = seen(&store);
    check_seen(&before, &expected_now);
    if !rebuilding(notes) {
        check_staged(&store, notes);
    }
    check_structure(&store);
    if more {
        goes_on(&store);
        assert_eq!(seen(&store), before);
        check_structure(&store);
    }
    store.close().unwrap();
    drop(store);
    Store::rebuild(&power_options(&dir)).unwrap();
    let store = Store::open(power_options(&dir)).unwrap();
    assert_eq!(seen(&store), before, "after a rebuild");
    check_structure(&store);
    drop(store);
    verify_backup(root, notes);
}

fn rebuilding(notes: &[Note]) -> bool {
    let last = notes
        .iter()
        .rfind(|note| matches!(note, Note::RebuildBegun | Note::RebuildDone));
    matches!(last, Some(Note::RebuildBegun))
}

/// The last backup that was promised is whole, or a later one in its place.
fn verify_backup(root: &Path, notes: &[Note]) {
    let done = notes.iter().rev().find_map(|note| match note {
        Note::BackupDone(begun) => Some(*begun),
        _ => None,
    });
    let Some(begun) = done else { return };
    let store = Store::open(power_options(&root.join("backup")))
        .unwrap_or_else(|error| panic!("the backup does not open: {error:?}"));
    let seen = seen(&store);
    // What was asked for later may be in it or not, and a newer backup than the promised one in its place.
    let expected = expected(notes, begun);
    for (key, may) in &expected.may {
        let value = seen.get(key).copied();
        assert!(
            may.contains(&value),
            "in the backup {key:?} is {value:?}, and may be {may:?}"
        );
    }
    check_structure(&store);
}

/// It takes more, and collects.
fn goes_on(store: &Store) {
    let cache = match store.cache("main").unwrap() {
        Some(cache) => cache,
        None => store.cache_create("main", "public", b"").unwrap(),
    };
    let session = store.session_open(&cache).unwrap();
    let blob = ingest(store, &session, &content(900_000)).unwrap();
    let root = firn_store::NewEntry {
        kind: EntryKind::Root,
        ..entry("more", &[blob.id])
    };
    store
        .publish(Some(&session), cache.id, publication(vec![root]))
        .unwrap();
    let options = CollectionOptions {
        grace: Duration::ZERO,
        dead_percent: 0,
        dead_bytes_min: 0,
        compact_always: true,
        ..CollectionOptions::default()
    };
    store.collect(&options, &|_| true).unwrap();
}
