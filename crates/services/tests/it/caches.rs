//! Caches that go, and come again under the same name.

use crate::support::{Fixture, open};
use firn_formats::admin::{CacheCreate, Right, TokenCreate};
use firn_services::{Identity, ServiceError};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn create(fixture: &Fixture, name: &str) -> Result<(), ServiceError> {
    let request = CacheCreate {
        name: name.to_owned(),
        public: false,
        priority: 40,
        domain: None,
        upstream_keys: Vec::new(),
        keep_for_seconds: None,
        quota_bytes: None,
        actions_shared: None,
    };
    fixture.services.access.cache_create(&request).map(drop)
}

fn token(fixture: &Fixture, caches: &[&str]) -> String {
    let request = TokenCreate {
        caches: caches.iter().map(|&name| name.to_owned()).collect(),
        allow: vec![Right::Pull],
        expires_in: None,
        note: None,
        actions: None,
    };
    let tokens = fixture.services.access.tokens();
    tokens.create(&request).unwrap().token
}

fn pulls(fixture: &Fixture, token: &str, cache: &str) -> bool {
    let access = &fixture.services.access;
    let who = access.identify(Some(token));
    access.authorize(&who, cache, Right::Pull).is_ok()
}

fn delete(fixture: &Fixture, name: &str) {
    let admin = token_of_all(fixture);
    let access = &fixture.services.access;
    let cache = access.authorize(&admin, name, Right::Pull).unwrap();
    access.cache_delete(&cache).unwrap();
}

fn token_of_all(fixture: &Fixture) -> Identity {
    let token = token(fixture, &["*"]);
    fixture.services.access.identify(Some(&token))
}

#[test]
fn s18_a_token_of_a_deleted_cache_does_not_read_the_next_one_of_that_name() {
    let mut fixture = Fixture::new();
    // Made before there is such a cache: the first of that name is meant.
    let early = token(&fixture, &["acme"]);
    create(&fixture, "acme").unwrap();
    let old = token(&fixture, &["acme"]);
    let both = token(&fixture, &["acme", "other"]);
    let pattern = token(&fixture, &["ac*"]);
    create(&fixture, "other").unwrap();
    let access = &fixture.services.access;
    let claims = access.tokens().verify(&old).unwrap();
    let (child, _) = access
        .tokens()
        .exchange(
            Some(&claims),
            vec!["acme".to_owned()],
            vec![Right::Pull],
            300,
        )
        .unwrap();
    let of_the_cache = [&early, &old, &both, &child];
    for token in of_the_cache.into_iter().chain([&pattern]) {
        assert!(pulls(&fixture, token, "acme"));
    }
    delete(&fixture, "acme");
    create(&fixture, "acme").unwrap();
    let new = token(&fixture, &["acme"]);
    for round in 0..2 {
        for token in of_the_cache {
            assert!(!pulls(&fixture, token, "acme"), "round {round}");
        }
        assert!(pulls(&fixture, &both, "other"));
        // What covers all names of a pattern is not about one cache.
        assert!(pulls(&fixture, &pattern, "acme") && pulls(&fixture, &new, "acme"));
        // Also with a database made anew, in which rows have other numbers.
        fixture = fixture.rebuilt();
    }
}

#[test]
fn d5_a_deletion_that_broke_off_ends_at_the_next_start() {
    let fixture = Fixture::new();
    create(&fixture, "acme").unwrap();
    let row = fixture.services.store.cache("acme").unwrap().unwrap();
    let old = token(&fixture, &["acme"]);
    // As far as a crash let it come.
    fixture.services.store.cache_delete_begin(row.id).unwrap();
    let refused = create(&fixture, "acme");
    let Err(error @ ServiceError::Conflict(_)) = &refused else {
        panic!("{refused:?}");
    };
    assert!(error.to_string().contains("being deleted"), "{error}");
    let fixture = fixture.restarted();
    assert!(!fixture.file("keys/acme.secret").exists());
    assert!(!pulls(&fixture, &old, "acme"));
    fixture.services.sweep();
    create(&fixture, "acme").unwrap();
    assert!(!pulls(&fixture, &old, "acme"));
}

/// A small file system in memory. Needs root.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn mount(at: &'a Path) -> Self {
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]);
        assert!(mount.arg(at).status().unwrap().success());
        Self(at)
    }

    /// Leaves no byte free.
    fn fill(&self) -> std::path::PathBuf {
        let ballast = self.0.join("ballast");
        let mut file = std::fs::File::create(&ballast).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        ballast
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let umount = Command::new("umount").arg("-l").arg(self.0).status();
        assert!(umount.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[test]
fn d5_a_full_disk_leaves_a_cache_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::mount(folder.path());
    let services = open(folder.path(), Duration::ZERO);
    let access = &services.access;
    let main = || access.authorize(&Identity::Anonymous, "main", Right::Pull);
    let cache = main().unwrap();
    let ballast = disk.fill();
    let refused = access.cache_delete(&cache);
    assert!(refused.is_err(), "there was room for it");
    assert!(main().is_ok(), "it is forgotten, and not deleted");
    assert!(disk.0.join("keys/main.secret").exists());
    std::fs::remove_file(ballast).unwrap();
    access.cache_delete(&cache).unwrap();
    assert!(main().is_err());
    assert_eq!(services.store.caches_deleting().unwrap(), []);
    drop(services);
}
