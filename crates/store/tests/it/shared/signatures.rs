//! Segments with signatures, and readers with keys.

use super::{KIND, folder, has, write};
use firn_formats::nix::SecretKey;
use firn_testkit::shared_store::Client;
use std::path::Path;
use std::sync::Arc;

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
