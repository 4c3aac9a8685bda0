use super::*;

fn cache(name: &str, private: bool) -> UseCache {
    let server = ServerUrl::parse("http://127.0.0.1:8484").expect("url");
    UseCache::new(&server, name, vec![format!("{name}-1:AAAA")], private)
}

fn token(token: &str) -> Option<NetrcToken<'_>> {
    Some(NetrcToken { token, id: None })
}

#[test]
fn using_a_cache_twice_changes_nothing_and_other_lines_stay() {
    let dir = tempfile::tempdir().expect("a folder");
    let files = ConfigFiles::in_dir(dir.path());
    std::fs::write(&files.nix_conf, "sandbox = true\n").expect("write");
    files.apply(&cache("main", false), None).expect("apply");
    let once = std::fs::read_to_string(&files.nix_conf).expect("read");
    files.apply(&cache("main", false), None).expect("apply");
    let twice = std::fs::read_to_string(&files.nix_conf).expect("read");
    assert_eq!(once, twice);
    assert!(once.starts_with("sandbox = true\n"));
    assert!(once.contains("extra-substituters = http://127.0.0.1:8484/main\n"));
    assert!(once.contains("extra-trusted-public-keys = main-1:AAAA\n"));
    assert!(!files.netrc.exists());
}

#[test]
fn a_second_cache_joins_the_first_and_lines_below_stay() {
    let dir = tempfile::tempdir().expect("a folder");
    let files = ConfigFiles::in_dir(dir.path());
    files.apply(&cache("main", false), None).expect("apply");
    let mut text = std::fs::read_to_string(&files.nix_conf).expect("read");
    text.push_str("max-jobs = 4\n");
    std::fs::write(&files.nix_conf, text).expect("write");
    files
        .apply(&cache("web", true), token("secret"))
        .expect("apply");
    let text = std::fs::read_to_string(&files.nix_conf).expect("read");
    assert!(text.contains("http://127.0.0.1:8484/main http://127.0.0.1:8484/web\n"));
    assert!(text.contains("main-1:AAAA web-1:AAAA\n"));
    assert!(text.ends_with("max-jobs = 4\n"));
    assert_eq!(text.matches(block::BLOCK_BEGIN).count(), 1);
    assert!(!text.contains("secret"));
}

#[test]
fn keys_that_a_cache_no_longer_signs_by_go() {
    let dir = tempfile::tempdir().expect("a folder");
    let files = ConfigFiles::in_dir(dir.path());
    let keys = || {
        let text = std::fs::read_to_string(&files.nix_conf).expect("read");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("extra-trusted-public-keys = "));
        line.expect("keys").to_owned()
    };
    files.apply(&cache("main", false), None).expect("apply");
    files.apply(&cache("web", false), None).expect("apply");
    let mut rotated = cache("main", false);
    rotated.public_keys.push("main-2:BBBB".to_owned());
    files.apply(&rotated, None).expect("apply");
    assert_eq!(keys(), "main-1:AAAA web-1:AAAA main-2:BBBB");
    rotated.public_keys.remove(0);
    files.apply(&rotated, None).expect("apply");
    assert_eq!(keys(), "web-1:AAAA main-2:BBBB");
    let elsewhere = ServerUrl::parse("http://other").expect("url");
    let other = UseCache::new(&elsewhere, "main", vec!["main-1:CCCC".to_owned()], false);
    files.apply(&other, None).expect("apply");
    assert_eq!(keys(), "web-1:AAAA main-2:BBBB main-1:CCCC");
}

#[test]
fn tokens_go_into_a_netrc_that_only_its_owner_reads() {
    let dir = tempfile::tempdir().expect("a folder");
    let files = ConfigFiles::in_dir(dir.path());
    std::fs::write(&files.netrc, "machine other login me password x\n").expect("write");
    files
        .apply(&cache("web", true), token("first"))
        .expect("apply");
    files
        .apply(&cache("web", true), token("second"))
        .expect("apply");
    let text = std::fs::read_to_string(&files.netrc).expect("read");
    assert_eq!(
        text,
        "machine 127.0.0.1 login firn password second\nmachine other login me password x\n"
    );
    let mode = std::fs::metadata(&files.netrc).expect("file").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
}

/// As on NixOS: a link into the store. What it leads to stays as it is, and nothing else is written either.
#[test]
fn n2_files_of_the_store_and_read_only_files_are_not_written() {
    let dir = tempfile::tempdir().expect("a folder");
    let files = ConfigFiles::in_dir(dir.path());
    std::fs::write(&files.nix_conf, "sandbox = true\n").expect("write");
    let read_only = std::fs::Permissions::from_mode(0o444);
    std::fs::set_permissions(&files.nix_conf, read_only).expect("chmod");
    let refused = files
        .apply(&cache("web", true), token("secret"))
        .expect_err("a read-only file");
    assert!(
        matches!(refused, ClientError::Unwritable { .. }),
        "{refused}"
    );
    let text = std::fs::read_to_string(&files.nix_conf).expect("read");
    assert_eq!(text, "sandbox = true\n");
    let mode = std::fs::metadata(&files.nix_conf)
        .expect("file")
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o444);
    assert!(!files.netrc.exists());
    std::fs::remove_file(&files.nix_conf).expect("remove");
    std::os::unix::fs::symlink("/nix/store/gone-nix.conf", &files.nix_conf).expect("link");
    assert!(files.check_writable(false).is_err());
    std::fs::remove_file(&files.nix_conf).expect("remove");
    assert!(files.check_writable(false).is_ok());
    std::os::unix::fs::symlink(STORE, &files.nix_conf).expect("link");
    assert!(!Path::new(STORE).exists() || files.check_writable(false).is_err());
}

#[test]
fn n3_removing_takes_back_all_that_was_written() {
    let dir = tempfile::tempdir().expect("a folder");
    let files = ConfigFiles::in_dir(dir.path());
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    std::fs::write(&files.nix_conf, "sandbox = true\n").expect("write");
    std::fs::write(&files.netrc, "default login me password x\n").expect("write");
    let made = NetrcToken {
        token: "secret",
        id: Some("t1"),
    };
    files.apply(&cache("web", true), Some(made)).expect("apply");
    files.apply(&cache("main", false), None).expect("apply");
    let url = |name: &str| cache(name, false).url;
    let known = files
        .remove(&url("web"))
        .expect("remove")
        .expect("it was there");
    assert_eq!(known.token_id.as_deref(), Some("t1"));
    let text = read(&files.nix_conf);
    assert!(
        text.contains("main-1:AAAA") && !text.contains("web"),
        "{text}"
    );
    assert_eq!(files.remove(&url("web")).expect("again"), None);
    files
        .remove(&url("main"))
        .expect("remove")
        .expect("it was there");
    assert_eq!(read(&files.nix_conf), "sandbox = true\n");
    assert_eq!(read(&files.netrc), "default login me password x\n");
    // And files that were not there before.
    let dir = tempfile::tempdir().expect("a folder");
    let files = ConfigFiles::in_dir(dir.path());
    files.apply(&cache("web", true), Some(made)).expect("apply");
    files
        .remove(&url("web"))
        .expect("remove")
        .expect("it was there");
    assert!(!files.nix_conf.exists() && !files.netrc.exists());
}

/// What an older version wrote does not say whose keys are whose.
#[test]
fn n3_a_block_of_before_is_understood() {
    let dir = tempfile::tempdir().expect("a folder");
    let files = ConfigFiles::in_dir(dir.path());
    let old = format!(
        "{}\nextra-substituters = http://127.0.0.1:8484/main http://127.0.0.1:8484/web\n\
         extra-trusted-public-keys = main-1:AAAA web-1:AAAA\n# <<< firn\nmax-jobs = 1\n",
        block::BLOCK_BEGIN
    );
    std::fs::write(&files.nix_conf, old).expect("write");
    files
        .remove("http://127.0.0.1:8484/web")
        .expect("remove")
        .expect("it was there");
    let text = std::fs::read_to_string(&files.nix_conf).expect("read");
    assert!(
        text.contains("= main-1:AAAA\n") && text.ends_with("max-jobs = 1\n"),
        "{text}"
    );
}

/// Two caches whose keys have names that were alike once: neither loses its key.
#[test]
fn n1_a_caches_keys_go_by_the_cache_and_not_by_their_names() {
    let dir = tempfile::tempdir().expect("a folder");
    let files = ConfigFiles::in_dir(dir.path());
    let server = ServerUrl::parse("http://127.0.0.1:8484").expect("url");
    for (name, key) in [
        ("acme/web", "acme-web-1:AAAA"),
        ("acme-web", "acme-web-1:BBBB"),
    ] {
        let cache = UseCache::new(&server, name, vec![key.to_owned()], false);
        files.apply(&cache, None).expect("apply");
    }
    let text = std::fs::read_to_string(&files.nix_conf).expect("read");
    assert!(
        text.contains("= acme-web-1:AAAA acme-web-1:BBBB\n"),
        "{text}"
    );
    // A cache that was deleted and made again, and so has a key of another name.
    let again = UseCache::new(
        &server,
        "acme-web",
        vec!["firn-acme-web-1f-1:CC".to_owned()],
        false,
    );
    files.apply(&again, None).expect("apply");
    let text = std::fs::read_to_string(&files.nix_conf).expect("read");
    assert!(
        text.contains("= acme-web-1:AAAA firn-acme-web-1f-1:CC\n"),
        "{text}"
    );
}
