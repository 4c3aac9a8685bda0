//! Segments with signatures, and readers with keys.

use super::{KIND, folder, has, write};
use firn_chunks::segment::{self, Covers, Preamble, Record};
use firn_formats::nix::SecretKey;
use firn_store::shared::GcOptions;
use firn_testkit::shared_store::Client;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn key(name: &str) -> Arc<SecretKey> {
    let seed = [name.len() as u8; 32];
    Arc::new(SecretKey::from_seed(name, seed))
}

fn writer(dir: &Path, key: Option<&Arc<SecretKey>>) -> Client {
    Client::with(folder(dir), |options| options.signing_key = key.cloned())
}

fn reader(dir: &Path, trusted: &[&Arc<SecretKey>]) -> Client {
    Client::with(folder(dir), |options| {
        options.trusted_keys = trusted.iter().map(|key| key.public()).collect();
    })
}

#[test]
fn strangers_segments_are_ignored_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (key("ours"), key("theirs-1"));
    write(&writer(dir.path(), Some(&ours)), KIND, "ours");
    write(&writer(dir.path(), Some(&theirs)), KIND, "theirs");
    write(&writer(dir.path(), None), KIND, "nobody's");

    let trusting = reader(dir.path(), &[&ours]);
    for _ in 0..2 {
        let refreshed = trusting.refresh().unwrap();
        assert_eq!(
            (refreshed.segments_total, refreshed.segments_refused),
            (3, 2)
        );
        assert!(has(&trusting, "ours"));
        assert!(!has(&trusting, "theirs") && !has(&trusting, "nobody's"));
    }
    let both = reader(dir.path(), &[&ours, &theirs]);
    assert_eq!(both.refresh().unwrap().segments_refused, 1);
    assert!(has(&both, "ours") && has(&both, "theirs") && !has(&both, "nobody's"));
    let anyone = reader(dir.path(), &[]);
    assert_eq!(anyone.refresh().unwrap().segments_refused, 0);
    assert!(has(&anyone, "ours") && has(&anyone, "theirs") && has(&anyone, "nobody's"));
}

/// A key of another's making with a name that is trusted.
#[test]
fn a_name_is_not_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let ours = Arc::new(SecretKey::from_seed("ours", [1; 32]));
    let forged = Arc::new(SecretKey::from_seed("ours", [2; 32]));
    write(&writer(dir.path(), Some(&forged)), KIND, "forged");
    let trusting = reader(dir.path(), &[&ours]);
    assert_eq!(trusting.refresh().unwrap().segments_refused, 1);
    assert!(!has(&trusting, "forged"));
}

/// A merge would hide what is signed from those who trust the key, or vouch for what is not.
#[test]
fn only_segments_of_the_same_signer_are_merged() {
    let dir = tempfile::tempdir().unwrap();
    let ours = key("ours");
    let signing = writer(dir.path(), Some(&ours));
    let unsigned = writer(dir.path(), None);
    for round in 0..6 {
        write(&signing, KIND, &format!("signed {round}"));
        write(&unsigned, KIND, &format!("unsigned {round}"));
    }
    let trusting = reader(dir.path(), &[&ours]);
    trusting.refresh().unwrap();
    for round in 0..6 {
        assert!(has(&trusting, &format!("signed {round}")));
        assert!(!has(&trusting, &format!("unsigned {round}")));
    }
    // Each writer reads what the other wrote: neither asks for signatures.
    for client in [&signing, &unsigned] {
        client.refresh().unwrap();
        assert!(has(client, "signed 0") && has(client, "unsigned 5"));
    }
}

/// What a branch with the right to write, and without the key that main's jobs have, may leave in the place.
fn hostile_segment(covered: &[String], key: Option<&SecretKey>) -> Vec<u8> {
    let covers: Vec<Covers> = [false, true]
        .map(|dropped| Covers {
            segments: covered.to_vec(),
            dropped,
        })
        .into();
    let entries = covered.iter().enumerate().map(|(at, _)| Record::Entry {
        cache: "main".to_owned(),
        kind: KIND as u16,
        key: format!("main {at}"),
        value: Vec::new(),
        blobs: Vec::new(),
        sequence: i64::MAX.cast_unsigned(),
        at: i64::MAX,
        deleted: true,
    });
    let preamble = Preamble {
        writer: "hostile",
        at: 0,
        covers: &covers,
        key,
    };
    segment::encode_with(&preamble, &entries.collect::<Vec<_>>())
}

/// Entries of higher numbers, deletions, and covers of all that main has, unsigned and under a key of its own:
/// main's jobs read, merge and collect as if they were not there, and vouch for none of it.
#[test]
fn branches_of_no_key_change_nothing_that_main_believes() {
    let dir = tempfile::tempdir().unwrap();
    let (main, other) = (key("main"), key("a-branch"));
    let main_job = || {
        Client::with(folder(dir.path()), |options| {
            options.signing_key = Some(main.clone());
            options.trusted_keys = vec![main.public()];
        })
    };
    let first = main_job();
    (0..3).for_each(|at| write(&first, KIND, &format!("main {at}")));
    let place = folder(dir.path());
    let all = place.segments().unwrap();
    for (at, key) in [(1, None), (u64::MAX >> 8, Some(&*other))] {
        place.publish(at, &hostile_segment(&all, key), &[]).unwrap();
    }
    write(&writer(dir.path(), Some(&other)), KIND, "poison");

    let holds = |client: &Client, count: usize| {
        client.refresh().unwrap();
        assert!((0..count).all(|at| has(client, &format!("main {at}"))));
        assert!(!has(client, "poison"));
    };
    // A machine that knew main's segments before, and one that sees all at once.
    holds(&first, 3);
    holds(&main_job(), 3);
    // Merges take in main's own alone.
    (3..12).for_each(|at| write(&main_job(), KIND, &format!("main {at}")));
    holds(&main_job(), 12);
    holds(&reader(dir.path(), &[&main]), 12);
    for ignore_unreadable in [false, true, true] {
        let options = GcOptions {
            grace: Duration::ZERO,
            ignore_unreadable,
            ..GcOptions::default()
        };
        let collector = main_job();
        collector.plan_gc(&options).unwrap().execute().unwrap();
        holds(&main_job(), 12);
    }
}

/// The newest name there can be is another's: main's next segments are not pushed out of their order by it.
#[test]
fn branches_cannot_use_up_the_time_in_names() {
    let dir = tempfile::tempdir().unwrap();
    let main = key("main");
    let main_job = || {
        Client::with(folder(dir.path()), |options| {
            options.signing_key = Some(main.clone());
            options.trusted_keys = vec![main.public()];
        })
    };
    write(&main_job(), KIND, "before");
    let place = folder(dir.path());
    let before = place.segments().unwrap();
    place
        .publish(u64::MAX, &hostile_segment(&before, None), &[])
        .unwrap();
    write(&main_job(), KIND, "after");
    let names = place.segments().unwrap();
    let own = names.iter().filter(|name| !name.starts_with("ffff"));
    // Neither wrapped round to the beginning of time nor in a far future.
    assert!(own.clone().all(|name| name.starts_with("000")), "{names:?}");
    assert!(own.max() > before.iter().max(), "{names:?}");
    let next = main_job();
    next.refresh().unwrap();
    assert!(has(&next, "before") && has(&next, "after"));
}
