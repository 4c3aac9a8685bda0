use std::{collections::BTreeMap, process::Command};

use proptest::prelude::*;

use super::*;

/// A tree to write and to read back.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Tree {
    Directory(BTreeMap<Vec<u8>, Tree>),
    Regular(bool, Vec<u8>),
    Symlink(Vec<u8>),
}

fn write_node(writer: &mut Writer, out: &mut Vec<u8>, tree: &Tree) {
    match tree {
        Tree::Symlink(target) => writer.symlink(out, target),
        Tree::Regular(executable, content) => {
            let size = content.len() as u64;
            writer.file_begin(out, *executable, size);
            out.extend_from_slice(content);
            writer.file_end(out, size);
        }
        Tree::Directory(entries) => {
            writer.directory_begin(out);
            for (name, child) in entries {
                writer.entry_begin(out, name);
                write_node(writer, out, child);
                writer.entry_end(out);
            }
            writer.directory_end(out);
        }
    }
}

fn archive(tree: &Tree) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    write_node(&mut writer, &mut out, tree);
    out
}

fn directory<const N: usize>(entries: [(&str, Tree); N]) -> Tree {
    let own = |(name, tree): (&str, Tree)| (name.as_bytes().to_vec(), tree);
    Tree::Directory(entries.into_iter().map(own).collect())
}

/// Every event in words, pieces of content joined; checks that all input came out again.
fn parse(archive: &[u8], piece: usize) -> Result<Vec<String>, NarError> {
    let mut parser = Parser::new();
    let mut seen = Vec::new();
    let mut content = Vec::new();
    let mut events = Vec::new();
    for input in archive.chunks(piece) {
        parser.push(input, &mut |event| match event {
            Event::Structure(bytes) => {
                assert!(!bytes.is_empty());
                seen.extend_from_slice(bytes);
            }
            Event::Content(bytes) => {
                assert!(!bytes.is_empty());
                seen.extend_from_slice(bytes);
                content.extend_from_slice(bytes);
            }
            Event::Entry { path, kind } => {
                if let EntryKind::Regular { offset, .. } = kind {
                    assert_eq!(offset, seen.len() as u64);
                }
                events.push(format!("{} {kind:?}", path.escape_ascii()));
            }
            Event::ContentEnd => {
                events.push(format!("= {:?}", std::mem::take(&mut content)));
            }
            Event::DirectoryEnd => events.push("end".into()),
        })?;
    }
    parser.finish()?;
    assert_eq!(seen, archive);
    Ok(events)
}

fn refused(archive: &[u8]) -> String {
    let whole = parse(archive, archive.len().max(1)).unwrap_err();
    assert_eq!(parse(archive, 1).unwrap_err(), whole);
    whole.what
}

fn sample() -> Tree {
    directory([
        ("a", directory([("x", Tree::Symlink(b"../b".to_vec()))])),
        ("a.b", directory([])),
        ("b", Tree::Regular(true, b"hello nar".to_vec())),
        ("c", Tree::Regular(false, Vec::new())),
        ("d", Tree::Regular(false, vec![7; 16])),
    ])
}

#[test]
fn events_in_order_whatever_the_pieces() {
    let archive = archive(&sample());
    let events = parse(&archive, archive.len()).unwrap();
    let paths: Vec<_> = events
        .iter()
        .map(|event| event.split(' ').next().unwrap())
        .collect();
    assert_eq!(
        paths,
        [
            "", "a", "a/x", "end", "a.b", "end", "b", "=", "c", "=", "d", "=", "end"
        ]
    );
    for piece in 1..archive.len() {
        assert_eq!(parse(&archive, piece).as_ref(), Ok(&events), "{piece}");
    }
}

#[test]
fn every_truncation_and_every_extra_byte_is_refused() {
    let mut archive = archive(&sample());
    for end in 0..archive.len() {
        assert!(parse(&archive[..end], 64).is_err(), "{end}");
    }
    archive.push(0);
    assert!(refused(&archive).contains("follow"));
}

#[test]
fn non_zero_padding_is_refused() {
    let mut bytes = archive(&Tree::Regular(false, b"x".to_vec()));
    let content = bytes.iter().rposition(|byte| *byte == b'x').unwrap();
    bytes[content + 1] = 1;
    assert_eq!(refused(&bytes), "padding is not zero");
    bytes[content + 1] = 0;
    bytes[8 + MAGIC.len()] = 1;
    assert_eq!(refused(&bytes), "padding is not zero");
}

#[test]
fn names() {
    let file = || Tree::Regular(false, Vec::new());
    for name in ["", ".", "..", "a/b", "/", "a\0"] {
        refused(&archive(&directory([(name, file())])));
    }
    let longest = "n".repeat(NAME_BYTES_MAX);
    parse(&archive(&directory([(&longest, file())])), 4096).unwrap();
    refused(&archive(&directory([(&format!("{longest}n"), file())])));
    for name in ["...", "~", "x~nix~case~hack~1", "\u{fc}", " ", "\n"] {
        parse(&archive(&directory([(name, file())])), 4096).unwrap();
    }
}

#[test]
fn unsorted_and_repeated_names_are_refused() {
    for (first, second) in [("b", "a"), ("a", "a"), ("ab", "a")] {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        writer.directory_begin(&mut bytes);
        for name in [first, second] {
            writer.entry_begin(&mut bytes, name.as_bytes());
            // A nested directory leaves a longer path behind.
            write_node(&mut writer, &mut bytes, &directory([("z", directory([]))]));
            writer.entry_end(&mut bytes);
        }
        writer.directory_end(&mut bytes);
        assert_eq!(refused(&bytes), "names are not sorted");
    }
}

#[test]
fn targets() {
    for target in [&b""[..], b"a\0b", &[b't'; TARGET_BYTES_MAX + 1]] {
        refused(&archive(&Tree::Symlink(target.to_vec())));
    }
    for target in [&b"/nix/store"[..], &[b't'; TARGET_BYTES_MAX]] {
        parse(&archive(&Tree::Symlink(target.to_vec())), 100).unwrap();
    }
}

#[test]
fn depth() {
    let nested = |depth: usize| {
        let leaf = Tree::Regular(false, Vec::new());
        (0..depth).fold(leaf, |tree, _| directory([("d", tree)]))
    };
    parse(&archive(&nested(DEPTH_MAX)), 4096).unwrap();
    assert!(refused(&archive(&nested(DEPTH_MAX + 1))).contains("deeper"));
    let read = |archive: &[u8]| {
        let mut parser = Parser::of_stored();
        parser.push(archive, &mut |_| ())?;
        parser.finish()
    };
    read(&archive(&nested(READ_DEPTH_MAX))).unwrap();
    assert!(read(&archive(&nested(READ_DEPTH_MAX + 1))).is_err());
}

#[test]
fn a_huge_length_holds_no_memory() {
    let mut bytes = Vec::new();
    Writer::new(&mut bytes);
    bytes.extend_from_slice(&u64::MAX.to_le_bytes());
    refused(&bytes);
    let mut bytes = Vec::new();
    Writer::new(&mut bytes).file_begin(&mut bytes, false, u64::MAX);
    assert_eq!(refused(&bytes), "a file is too large");
}

#[test]
fn after_an_error_nothing_is_taken() {
    let mut parser = Parser::new();
    let bytes = archive(&sample());
    assert!(parser.push(&[0xff; 8], &mut |_| ()).is_err());
    assert!(parser.push(&bytes, &mut |_| panic!("an event")).is_err());
    assert!(parser.finish().is_err());
}

fn lay_out(tree: &Tree, path: &std::path::Path) {
    use std::os::unix::{ffi::OsStrExt as _, fs::PermissionsExt, fs::symlink};
    match tree {
        Tree::Symlink(target) => symlink(std::ffi::OsStr::from_bytes(target), path).unwrap(),
        Tree::Regular(executable, content) => {
            std::fs::write(path, content).unwrap();
            let mode = if *executable { 0o755 } else { 0o644 };
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        }
        Tree::Directory(entries) => {
            std::fs::create_dir(path).unwrap();
            for (name, child) in entries {
                lay_out(child, &path.join(std::ffi::OsStr::from_bytes(name)));
            }
        }
    }
}

#[test]
fn equals_what_nix_dumps() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("root");
    lay_out(&sample(), &root);
    let dump = Command::new("nix-store")
        .arg("--dump")
        .arg(&root)
        .output()
        .unwrap();
    assert!(dump.status.success());
    assert_eq!(dump.stdout, archive(&sample()));
}

fn trees() -> impl Strategy<Value = Tree> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..40);
    let leaf = prop_oneof![
        (any::<bool>(), bytes).prop_map(|(executable, content)| Tree::Regular(executable, content)),
        proptest::collection::vec(1u8.., 1..20).prop_map(Tree::Symlink),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        let name = "[a-c.]{0,3}[a-z]".prop_map(String::into_bytes);
        proptest::collection::btree_map(name, inner, 0..6).prop_map(Tree::Directory)
    })
}

proptest! {
    #[test]
    fn round_trip(tree in trees(), piece in 1usize..200) {
        let archive = archive(&tree);
        let whole = parse(&archive, archive.len());
        prop_assert!(whole.is_ok(), "{:?}", whole);
        prop_assert_eq!(parse(&archive, piece), whole);
    }

    #[test]
    fn a_changed_byte_never_panics(tree in trees(), at: proptest::sample::Index, byte: u8) {
        let mut archive = archive(&tree);
        let at = at.index(archive.len());
        archive[at] = byte;
        let whole = parse(&archive, archive.len()).map_err(|error| error.what);
        prop_assert_eq!(parse(&archive, 3).map_err(|error| error.what), whole);
    }
}
