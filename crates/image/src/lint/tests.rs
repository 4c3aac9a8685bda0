use super::*;
use crate::closure::PathInfo;
use firn_formats::{Sha256, oci::config::Healthcheck};
use std::{fs, os::unix::fs::symlink};
use tempfile::TempDir;

/// A store in a folder whose paths are called by their names.
struct Store {
    folder: TempDir,
    paths: Vec<PathInfo>,
}

fn store_path(name: &str) -> StorePath {
    let letters = b"0123456789abcdfghijklmnpqrsvwxyz";
    let seed = Sha256::of(name.as_bytes());
    let hash: String = seed
        .0
        .iter()
        .map(|byte| char::from(letters[usize::from(byte % 32)]))
        .collect();
    StorePath::parse_base_name(&format!("{hash}-{name}")).unwrap()
}

fn absolute(name: &str, file: &str) -> String {
    format!("{}/{file}", store_path(name).absolute())
}

impl Store {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            paths: Vec::new(),
        }
    }

    fn add(&mut self, name: &str, size: u64, references: &[&str], files: &[(&str, &str)]) {
        let top = self.folder.path().join(store_path(name).to_string());
        fs::create_dir_all(&top).unwrap();
        for (file, content) in files {
            let file = top.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            match content.strip_prefix("-> ") {
                Some(target) => symlink(target, file).unwrap(),
                None => fs::write(file, content).unwrap(),
            }
        }
        self.paths.push(PathInfo {
            path: store_path(name),
            nar_hash: Sha256::of(name.as_bytes()),
            nar_size: size,
            references: references.iter().map(|name| store_path(name)).collect(),
            deriver: None,
            signatures: Vec::new(),
            ca: None,
        });
    }

    fn lint(&self, roots: &[&str], config: &Config) -> Findings {
        let roots = roots.iter().map(|name| store_path(name)).collect();
        let closure = Closure::new(self.paths.clone(), roots).unwrap();
        lint(self.folder.path(), &closure, config, &|_| false)
    }
}

/// The first seed's image, with what it says should not be there.
fn seed() -> Store {
    let mut store = Store::new();
    let program = |name: &str| format!("\u{7f}ELF\0{name}\0");
    store.add("glibc-2.38", 300, &[], &[("lib/libc.so.6", "x")]);
    store.add(
        "perl-5.38",
        60,
        &["glibc-2.38"],
        &[("bin/perl", &program("perl"))],
    );
    store.add(
        "ffmpeg-full-6.1",
        100,
        &["glibc-2.38"],
        &[("bin/ffmpeg", &program("x"))],
    );
    store.add(
        "swarm-0.1.0",
        10,
        &["glibc-2.38"],
        &[("bin/swarm", "\u{7f}ELFgo:ffmpegexec: github.com/git")],
    );
    store.add(
        "busybox-1.36",
        2,
        &[],
        &[("bin/sh", &program("sh")), ("bin/ls", "-> sh")],
    );
    store.add(
        "curl-8.5",
        5,
        &["glibc-2.38"],
        &[("bin/curl", &program("curl"))],
    );
    store.add(
        "cacert-3.95",
        1,
        &[],
        &[("etc/ssl/certs/ca-bundle.crt", "x")],
    );
    store.add(
        "git-2.42",
        40,
        &["perl-5.38", "glibc-2.38"],
        &[("bin/git", &program("git"))],
    );
    store.add(
        "vim-9.0",
        30,
        &["glibc-2.38"],
        &[("bin/vim", &program("vim"))],
    );
    let script = format!(
        "#!{}\nexec swarm \"$@\"\n",
        absolute("busybox-1.36", "bin/sh")
    );
    store.add(
        "entrypoint",
        1,
        &["busybox-1.36"],
        &[("bin/entrypoint", &script)],
    );
    store
}

fn seed_config() -> Config {
    Config {
        entrypoint: Some(vec![absolute("entrypoint", "bin/entrypoint")]),
        healthcheck: Some(Healthcheck {
            test: vec![
                "CMD-SHELL".to_owned(),
                "curl -f localhost || exit 1".to_owned(),
            ],
            ..Healthcheck::default()
        }),
        ..Config::default()
    }
}

const CONTENTS: [&str; 8] = [
    "entrypoint",
    "swarm-0.1.0",
    "ffmpeg-full-6.1",
    "busybox-1.36",
    "curl-8.5",
    "cacert-3.95",
    "git-2.42",
    "vim-9.0",
];

fn unused(found: &Findings) -> Vec<(&str, u64)> {
    let unused = found
        .findings
        .iter()
        .filter(|finding| finding.check == Check::Unused);
    unused
        .map(|finding| (&finding.path[33..], finding.bytes))
        .collect()
}

#[test]
fn the_seeds_git_and_vim_are_found() {
    let found = seed().lint(&CONTENTS, &seed_config());
    assert_eq!(
        unused(&found),
        [("git-2.42", 100), ("vim-9.0", 30)],
        "{found:#?}"
    );
    assert_eq!(found.bytes, 130);
    assert_eq!(found.findings[0].paths, 2, "perl comes with git alone");
}

#[test]
fn contents_in_a_farm_of_links_are_contents() {
    let mut store = seed();
    let links: Vec<(String, String)> = CONTENTS
        .iter()
        .map(|name| {
            let program = name.split('-').next().unwrap();
            (
                format!("bin/{program}"),
                format!("-> {}", absolute(name, &format!("bin/{program}"))),
            )
        })
        .collect();
    let files: Vec<(&str, &str)> = links
        .iter()
        .map(|(file, target)| (file.as_str(), target.as_str()))
        .collect();
    store.add("root", 1, &CONTENTS, &files);
    let config = Config {
        entrypoint: Some(vec!["/bin/entrypoint".to_owned()]),
        ..seed_config()
    };
    let found = store.lint(&["root"], &config);
    assert_eq!(
        unused(&found),
        [("git-2.42", 100), ("vim-9.0", 30)],
        "{found:#?}"
    );
    assert_eq!(found.findings[0].via.len(), 2, "by way of the farm");
}

/// What is started stays when what else refers to it goes.
#[test]
fn the_cost_is_what_would_really_go() {
    let mut store = Store::new();
    store.add("glibc-2.38", 300, &[], &[("lib/libc.so.6", "x")]);
    store.add(
        "hello-2",
        20,
        &["glibc-2.38"],
        &[("bin/hello", "\u{7f}ELF")],
    );
    store.add("app-1", 10, &["hello-2"], &[("bin/app", "\u{7f}ELF")]);
    let config = Config {
        entrypoint: Some(vec![absolute("hello-2", "bin/hello")]),
        ..Config::default()
    };
    let found = store.lint(&["app-1"], &config);
    assert_eq!(unused(&found), [("app-1", 10)], "{found:#?}");
}

#[test]
fn without_anything_to_start_nothing_is_unused_and_a_note_says_so() {
    let found = seed().lint(&CONTENTS, &Config::default());
    assert!(unused(&found).is_empty());
    assert_eq!(found.notes.len(), 1, "{found:?}");
}

#[test]
fn what_is_for_building_is_found_with_the_way_it_got_in() {
    let mut store = Store::new();
    store.add(
        "glibc-2.38",
        300,
        &[],
        &[
            ("include/stdio.h", "12345"),
            ("lib/libc.a", "123"),
            ("lib/x.so", "1"),
        ],
    );
    store.add(
        "zlib-1.3-dev",
        7,
        &["glibc-2.38"],
        &[("include/zlib.h", "x")],
    );
    store.add(
        "gcc-wrapper-13.2.0",
        200,
        &["glibc-2.38"],
        &[("bin/gcc", "x")],
    );
    store.add("openssl-3.0.9", 40, &[], &[("lib/x.so", "1")]);
    store.add("openssl-3.0.13", 41, &[], &[("lib/x.so", "1")]);
    let references = ["gcc-wrapper-13.2.0", "zlib-1.3-dev", "openssl-3.0.9"];
    store.add(
        "middle-1",
        5,
        &references,
        &[("share/man/man1/m.1", "1234567")],
    );
    store.add(
        "app-1",
        5,
        &["middle-1", "openssl-3.0.13"],
        &[("bin/app", "#!/bin/sh\n")],
    );
    let config = Config {
        entrypoint: Some(vec!["app".to_owned()]),
        ..Config::default()
    };
    let found = store.lint(&["app-1"], &config);
    let brief: Vec<(Check, &str, u64)> = found
        .findings
        .iter()
        .map(|f| (f.check, &f.path[33..], f.bytes))
        .collect();
    assert_eq!(
        brief,
        [
            (Check::BuildTime, "gcc-wrapper-13.2.0", 200),
            (Check::TwoVersions, "openssl-3.0.9", 40),
            (Check::DevOutput, "zlib-1.3-dev", 7),
            (Check::Docs, "middle-1", 7),
        ],
        "{found:#?}"
    );
    let via: Vec<&str> = found.findings[0]
        .via
        .iter()
        .map(|path| &path[33..])
        .collect();
    assert_eq!(via, ["app-1", "middle-1", "gcc-wrapper-13.2.0"]);
    // Without gcc and zlib's headers nothing needs glibc, so all of it goes, and is not found by its files too.
    assert_eq!(found.bytes, 547 + 7);
}

#[test]
fn files_of_what_stays_are_found() {
    let mut store = Store::new();
    let files = [
        ("include/a.h", "12345"),
        ("lib/libc.a", "123"),
        ("share/doc/x/README", "12"),
        ("lib/x.so", "1"),
    ];
    store.add("lib-1", 30, &[], &files);
    store.add("app-1", 5, &["lib-1"], &[("bin/app", "#!/bin/sh\n")]);
    let config = Config {
        cmd: Some(vec!["app".to_owned()]),
        ..Config::default()
    };
    let found = store.lint(&["app-1"], &config);
    let brief: Vec<(Check, &str, u64)> = found
        .findings
        .iter()
        .map(|f| (f.check, f.files[0].as_str(), f.bytes))
        .collect();
    assert_eq!(
        brief,
        [
            (Check::Headers, "include", 5),
            (Check::StaticLibrary, "lib", 3),
            (Check::Docs, "share/doc", 2)
        ]
    );
    assert_eq!(found.bytes, 10);
}
