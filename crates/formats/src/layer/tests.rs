use super::*;
use crate::nix::nar::Writer;
use crate::tar::{self, Entry, EntryKind};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A tree of which both the tar and the NAR are made here, by other code than the scan's.
#[derive(Debug, Clone)]
enum Tree {
    Directory(BTreeMap<String, Tree>),
    File(Vec<u8>, bool),
    Link(String),
}

type Store = BTreeMap<String, Tree>;
type Entries = Vec<(Entry, Vec<u8>)>;

fn tree() -> impl Strategy<Value = Tree> {
    let file = (prop::collection::vec(any::<u8>(), 0..1500), any::<bool>());
    let leaf = prop_oneof![
        file.prop_map(|(content, executable)| Tree::File(content, executable)),
        "[a-z/.]{1,120}".prop_map(Tree::Link),
    ];
    leaf.prop_recursive(4, 20, 5, |inner| {
        prop::collection::btree_map("[a-zA-Z.+-]{3,60}", inner, 0..5).prop_map(Tree::Directory)
    })
}

fn store() -> impl Strategy<Value = Store> {
    prop::collection::btree_map("[0-9a-d]{32}-[a-z][a-z+.-]{0,8}", tree(), 1..4)
}

fn entry(path: &str, kind: EntryKind, mode: u32) -> Entry {
    Entry {
        path: path.as_bytes().to_vec(),
        kind,
        mode,
        uid: 7,
        gid: 9,
        mtime: 1,
    }
}

fn list(path: &str, tree: &Tree, entries: &mut Entries) {
    match tree {
        Tree::Directory(children) => {
            entries.push((entry(path, EntryKind::Directory, 0o555), Vec::new()));
            for (name, child) in children {
                list(&format!("{path}/{name}"), child, entries);
            }
        }
        Tree::Link(target) => {
            let target = target.as_bytes().to_vec();
            entries.push((
                entry(path, EntryKind::Symlink { target }, 0o777),
                Vec::new(),
            ));
        }
        Tree::File(content, executable) => {
            let size = content.len() as u64;
            let mode = if *executable { 0o555 } else { 0o444 };
            let entry = entry(path, EntryKind::Regular { size }, mode);
            entries.push((entry, content.clone()));
        }
    }
}

fn entries(store: &Store) -> Entries {
    let parent = |path| (entry(path, EntryKind::Directory, 0o755), Vec::new());
    let mut entries = vec![parent("nix"), parent("nix/store")];
    for (name, tree) in store {
        list(&format!("nix/store/{name}"), tree, &mut entries);
    }
    entries
}

fn written(entries: &Entries) -> Vec<u8> {
    let mut tar = Vec::new();
    for (entry, content) in entries {
        tar::header(entry, &mut tar).unwrap();
        tar.extend_from_slice(content);
        tar.resize(tar.len() + tar::padding(content.len() as u64), 0);
    }
    tar.resize(tar.len() + tar::TRAILER_BYTES, 0);
    tar
}

fn nar(writer: &mut Writer, tree: &Tree, out: &mut Vec<u8>) {
    match tree {
        Tree::Directory(children) => {
            writer.directory_begin(out);
            for (name, child) in children {
                writer.entry_begin(out, name.as_bytes());
                nar(writer, child, out);
                writer.entry_end(out);
            }
            writer.directory_end(out);
        }
        Tree::Link(target) => writer.symlink(out, target.as_bytes()),
        Tree::File(content, executable) => {
            let size = content.len() as u64;
            writer.file_begin(out, *executable, size);
            out.extend_from_slice(content);
            writer.file_end(out, size);
        }
    }
}

fn key(store: &Store, rules: &str) -> String {
    let mut text =
        format!("firn layer 1\nowner 7:9\nmtime 1\nmodes 0444 0555\n{rules}").into_bytes();
    let mut lines = Vec::new();
    for (name, tree) in store {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        nar(&mut writer, tree, &mut out);
        lines.push(format!("/nix/store/{name} {}\n", Sha256::of(&out).nix()));
    }
    lines.sort_unstable();
    text.extend(lines.concat().into_bytes());
    Sha256::of(&text).hex()
}

/// In pieces of some length; in a second pass if it is needed.
fn scanned(tar: &[u8], piece: usize, terms: Option<&Arc<Terms>>) -> Found {
    let pass = |mut scan: Scan| {
        tar.chunks(piece).for_each(|bytes| scan.push(bytes));
        assert_eq!(scan.length(), tar.len() as u64);
        scan.finish()
    };
    match pass(Scan::new(terms.cloned())) {
        Found::Mixed { paths_key } => pass(Scan::mixed(terms.cloned(), &paths_key)),
        found => found,
    }
}

/// What a pusher could do to a layer, in the order of the numbers.
fn deviate(entries: &mut Entries, kind: u8, at: usize, other: usize) {
    let (at, other) = (at % entries.len(), other % entries.len());
    let (entry, content) = &mut entries[at];
    match kind {
        0 => entry.mode ^= 1 << (other % 12),
        1 => entry.uid += 1,
        2 => entry.gid = 1 << 40,
        3 => entry.mtime = other as u64 * 2,
        4 => entry.path.extend_from_slice(b"x"),
        5 => drop(entries.remove(at)),
        6 => entries.insert(at, entries[other].clone()),
        7 => entries.swap(at, other),
        8 => {
            entry.kind = EntryKind::Hardlink {
                target: b"nix/store/x".to_vec(),
            };
            content.clear();
        }
        9 => match &mut entry.kind {
            EntryKind::Symlink { target } => target.push(b'x'),
            EntryKind::Regular { size } => {
                *size += 1;
                content.push(0);
            }
            _ => entry.kind = EntryKind::Regular { size: 0 },
        },
        10 => {
            if let Some(byte) = content.get_mut(other) {
                *byte ^= 1;
            }
        }
        11 => {
            let mut extra = entry.clone();
            extra.path = [b"nix/store/", &extra.path[..], b"-extra"].concat();
            extra.kind = EntryKind::Directory;
            entries.push((extra, Vec::new()));
        }
        12 => {
            let path = b"etc/passwd".to_vec();
            let extra = Entry {
                path,
                kind: EntryKind::Regular { size: 1 },
                ..entry.clone()
            };
            entries.insert(0, (extra, b"x".to_vec()));
        }
        _ => {
            let path = b"zzz".to_vec();
            let kind = EntryKind::Directory;
            let extra = Entry {
                path,
                kind,
                ..entry.clone()
            };
            entries.push((extra, Vec::new()));
        }
    }
}

proptest! {
    #[test]
    fn s1_the_key_of_a_layer_is_computed_from_its_tar(store in store(), piece in 1usize..3000) {
        let tar = written(&entries(&store));
        prop_assert_eq!(scanned(&tar, piece, None), Found::Key(key(&store, "")));
    }

    #[test]
    fn s1_no_other_tar_has_the_key(
        store in store(),
        piece in 1usize..3000,
        kind in 0u8..14,
        at in any::<usize>(),
        other in any::<usize>(),
    ) {
        let mut list = entries(&store);
        let tar = written(&list);
        deviate(&mut list, kind, at, other);
        let deviating = written(&list);
        prop_assume!(deviating != tar);
        prop_assert_ne!(scanned(&deviating, piece, None), Found::Key(key(&store, "")));
    }

    #[test]
    fn s1_no_other_bytes_have_the_key(
        store in store(),
        piece in 1usize..3000,
        at in any::<usize>(),
        bytes in prop::collection::vec(any::<u8>(), 1..4),
        insert in any::<bool>(),
    ) {
        let tar = written(&entries(&store));
        let at = at % tar.len();
        let mut other = tar.clone();
        let until = if insert { at } else { tar.len().min(at + bytes.len()) };
        other.splice(at..until, bytes.iter().copied());
        if other != tar {
            prop_assert_ne!(scanned(&other, piece, None), Found::Key(key(&store, "")));
        }
        for rest in [&tar[..at], &[&tar[..], &bytes[..]].concat(), &[&tar[..], &[0; 512]].concat()] {
            prop_assert_ne!(scanned(rest, piece, None), Found::Key(key(&store, "")));
        }
    }

    /// A rule that hides which files are executable: the layer is proven only with the truth.
    #[test]
    fn s1_what_a_recipe_says_of_executable_files_is_proven(store in store(), lie in any::<usize>()) {
        let rule = Rule {
            path: Some("/nix/store".to_owned()),
            regex: Some("[a-m]$".to_owned()),
            mode: Some("0750".to_owned()),
            uid: Some(3),
            gid: None,
        };
        let rules = Rules::new(vec![rule.clone()], 7, 9).unwrap();
        let mut list = entries(&store);
        let mut executable = Vec::new();
        let mut files = Vec::new();
        for (entry, _) in &mut list {
            let mut attributes = Attributes { mode: entry.mode, uid: 7, gid: 9 };
            let path = String::from_utf8(entry.path.clone()).unwrap();
            rules.apply(format!("/{path}").as_bytes(), None, &mut attributes);
            if attributes.mode == 0o750 && matches!(entry.kind, EntryKind::Regular { .. }) {
                files.push(path.clone());
                if entry.mode == 0o555 {
                    executable.push(path);
                }
            }
            (entry.mode, entry.uid, entry.gid) = (attributes.mode, attributes.uid, attributes.gid);
        }
        let tar = written(&list);
        let mut recipe = Recipe { uid: 7, gid: 9, rules: vec![rule], executable };
        let expected = Found::Key(key(&store, &rules.lines()));
        let terms = Arc::new(recipe.terms().unwrap());
        prop_assert_eq!(scanned(&tar, 1000, Some(&terms)), expected.clone());
        prop_assert_ne!(scanned(&tar, 1000, None), expected.clone());
        if !files.is_empty() {
            let lied = files[lie % files.len()].clone();
            match recipe.executable.iter().position(|path| *path == lied) {
                Some(at) => drop(recipe.executable.remove(at)),
                None => recipe.executable.push(lied),
            }
            let terms = Arc::new(recipe.terms().unwrap());
            prop_assert_ne!(scanned(&tar, 1000, Some(&terms)), expected);
        }
    }

    #[test]
    fn s1_root_files_have_the_key_of_their_bytes(store in store(), at in any::<usize>()) {
        let file = |path: &str| {
            let kind = EntryKind::Regular { size: 3 };
            (entry(path, kind, 0o640), b"abc".to_vec())
        };
        let link = |path: &str| {
            let kind = EntryKind::Symlink { target: b"x".to_vec() };
            (entry(path, kind, 0o777), Vec::new())
        };
        let nix = (entry("nix", EntryKind::Directory, 0o755), Vec::new());
        let before = [file("a"), link("bin")];
        let after = [file("nix/var"), link("usr"), file("zz")];
        let root = [&before[..], &[nix], &after[..]].concat();
        let root_tar = written(&root);
        let mut expected = root_key();
        expected.update(&root_tar);
        prop_assert_eq!(scanned(&root_tar, 700, None), Found::Key(expected.finish().hex()));

        let middle = entries(&store);
        let list = [&before[..], &middle[..], &after[..]].concat();
        let mut expected = mixed_key(&key(&store, ""));
        expected.update(&root_tar);
        let expected = Found::Key(expected.finish().hex());
        let tar = written(&list);
        prop_assert_eq!(scanned(&tar, 700, None), expected.clone());
        let (mut swapped, at) = (list.clone(), at % (list.len() - 1));
        swapped.swap(at, at + 1);
        prop_assert_ne!(scanned(&written(&swapped), 700, None), expected);
    }
}

#[test]
fn s1_the_text_of_a_layer_with_copies_is_no_layer() {
    // Whoever pushed the text itself would have a blob with the key of the layer that the text is of.
    let mut text = COPIED.to_vec();
    text.resize(512, b'a');
    assert!(matches!(scanned(&text, 100, None), Found::Unlike(_)));
    let named = (entry("copied\nx", EntryKind::Directory, 0o755), Vec::new());
    assert!(matches!(
        scanned(&written(&vec![named]), 100, None),
        Found::Unlike(_)
    ));
}

#[test]
fn recipes_that_cost_too_much_are_refused() {
    let regex = |regex: &str| Rule {
        path: None,
        regex: Some(regex.to_owned()),
        mode: None,
        uid: Some(1),
        gid: None,
    };
    let of = |rules| Recipe {
        rules,
        ..Recipe::default()
    };
    assert!(of(vec![regex("a")]).terms().is_ok());
    assert!(of(vec![regex("a{1000}{1000}")]).terms().is_err());
    assert!(of(vec![regex("a"); 257]).terms().is_err());
}
