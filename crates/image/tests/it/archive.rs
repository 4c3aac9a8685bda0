//! NARs as nix-store makes them; bytes at random as in order; trees that change or cannot be archived.

use crate::support::{Store, bytes, noise, run, text, write};
use firn_image::archive::{Archive, ArchiveError};
use proptest::prelude::*;
use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::symlink, net::UnixListener},
    path::Path,
};

fn same_as_nix(path: &Path) {
    let archive = Archive::nar(path).unwrap();
    assert!(
        bytes(&archive) == run("nix-store", &["--dump", text(path)]),
        "the NAR of {} is not nix-store's",
        path.display()
    );
}

#[test]
fn a_nar_is_what_nix_store_dumps() {
    let store = Store::new();
    same_as_nix(&store.local("libc"));
    same_as_nix(&store.local("app"));
    same_as_nix(&store.local("libc").join("lib/libc.so.6"));
    same_as_nix(&store.local("libc").join("lib/libc.so"));
    let odd = store.dir().join("odd");
    for (i, name) in [&b"a.b"[..], b"a", b"a-b", b"A", b"\xff\xfe", b" x "]
        .iter()
        .enumerate()
    {
        let size = [0, 1, 7, 8, 9, 2_000_000][i];
        write(&odd.join(OsStr::from_bytes(name)), &noise(size, 9), 0o644);
    }
    write(&odd.join("a.d/group-executable"), b"#!", 0o654);
    symlink("/nowhere/at all", odd.join("link")).unwrap();
    same_as_nix(&odd);
}

#[test]
fn a_deep_tree_is_walked_without_recursion_as_far_as_nix_restores_it() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("d/".repeat(63));
    write(&deep.join("f"), b"deep", 0o444);
    same_as_nix(&folder.path().join("d"));
    write(&deep.join("d/".repeat(1_437)).join("f"), b"deep", 0o444);
    let refused = Archive::nar(&folder.path().join("d"));
    assert!(matches!(
        refused,
        Err(ArchiveError::TooDeep { limit: 63, .. })
    ));
}

#[test]
fn bytes_at_random_are_those_in_order() {
    let store = Store::new();
    let archive = Archive::nar(&store.local("tool")).unwrap();
    let all = bytes(&archive);
    let strategy = (0..=all.len(), 0..=all.len()).prop_map(|(a, b)| (a.min(b), a.max(b)));
    proptest!(|((from, to) in strategy)| {
        let mut out = Vec::new();
        archive.read_at(from as u64, to - from, &mut out).unwrap();
        prop_assert!(out == all[from..to]);
    });
    let mut out = Vec::new();
    let past = archive.read_at(archive.length(), 1, &mut out);
    assert!(matches!(past, Err(ArchiveError::PastEnd { .. })));
    let far = archive.read_at(u64::MAX, usize::MAX, &mut out);
    assert!(matches!(far, Err(ArchiveError::PastEnd { .. })));
}

#[test]
fn regions_are_the_files_contents() {
    let store = Store::new();
    let archive = Archive::nar(&store.local("libc")).unwrap();
    let all = bytes(&archive);
    assert_eq!(archive.files().len(), 2, "an empty file has no content");
    for region in archive.files() {
        let range = region.offset as usize..(region.offset + region.size) as usize;
        assert!(all[range] == fs::read(&region.file).unwrap());
    }
}

#[test]
fn a_changed_file_is_noticed() {
    for size in [39_999, 40_001, 0, 1 << 20, (1 << 20) + 1] {
        let store = Store::new();
        let file = store.local("tool").join("bin/tool");
        let archive = Archive::nar(&store.local("tool")).unwrap();
        let length = archive.length() as usize;
        fs::remove_file(&file).unwrap();
        write(&file, &noise(size, 4), 0o555);
        let is_changed = |result: Result<(), ArchiveError>| match result {
            Err(ArchiveError::Changed(path)) => assert_eq!(path, file),
            other => panic!("{other:?}"),
        };
        is_changed(archive.stream(&mut |_| Ok(())));
        is_changed(archive.read_at(0, length, &mut Vec::new()));
        is_changed(
            archive
                .chunk(firn_chunks::boundaries::V1, &|_| None)
                .map(|_| ()),
        );
    }
}

#[test]
fn what_is_no_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let _listener = UnixListener::bind(&path).unwrap();
    match Archive::nar(folder.path()) {
        Err(ArchiveError::Unsupported(at)) => assert_eq!(at, path),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        Archive::nar(&folder.path().join("absent")),
        Err(ArchiveError::Io { .. })
    ));
}

#[test]
fn a_failing_receiver_ends_the_stream() {
    let store = Store::new();
    let archive = Archive::nar(&store.local("tool")).unwrap();
    let mut calls = 0;
    let result = archive.stream(&mut |_| {
        calls += 1;
        Err(std::io::Error::other("full"))
    });
    assert!(matches!(result, Err(ArchiveError::Sink(_))));
    assert_eq!(calls, 1);
}
