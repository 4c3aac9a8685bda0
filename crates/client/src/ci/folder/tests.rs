use super::*;
use crate::ci::Base;
use std::path::Path;

fn base(dir: &Path) -> Base {
    Base {
        directory: dir.join("work"),
        home: Some(dir.join("home")),
    }
}

fn names(patterns: &[&str], base: &Base) -> (Vec<String>, Vec<String>) {
    let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
    let (kept, of_nix) = places(&patterns, base).expect("places");
    let names = |places: Vec<Place>| places.into_iter().map(|place| place.name).collect();
    (names(kept), names(of_nix))
}

#[test]
fn places_have_names_that_hold_on_every_machine() {
    let dir = tempfile::tempdir().expect("a folder");
    let base = base(dir.path());
    for folder in [
        "work/a/node_modules/x/node_modules",
        "work/b/node_modules",
        "home/.cache",
    ] {
        std::fs::create_dir_all(dir.path().join(folder)).expect("folder");
    }
    let (kept, of_nix) = names(
        &[
            "~/.cache/nix\n/nix/store\n# a comment",
            "target/",
            "/var/cache/x",
            "/nix/var/nix/db",
        ],
        &base,
    );
    assert_eq!(kept, ["~/.cache/nix", "target", "/var/cache/x"]);
    assert_eq!(of_nix, ["/nix/store", "/nix/var/nix/db"]);
    let (kept, _) = names(&["**/node_modules", "!b/**"], &base);
    assert_eq!(
        kept,
        ["a/node_modules"],
        "the outermost, less what is excluded"
    );
    let wrong: Vec<String> = vec!["../x".to_owned()];
    assert!(places(&wrong, &base).is_err());
}

#[test]
fn a_name_in_an_entry_leads_nowhere_else() {
    let dir = tempfile::tempdir().expect("a folder");
    let base = base(dir.path());
    let place = |name: &str| Place::of_name(name, &base).map(|place| place.path);
    assert_eq!(
        place("~/.cache/nix"),
        Some(dir.path().join("home/.cache/nix"))
    );
    assert_eq!(place("target"), Some(dir.path().join("work/target")));
    assert_eq!(place("/var/x"), Some("/var/x".into()));
    for name in ["~/../etc", "../x", "", "~/"] {
        assert_eq!(place(name), None, "{name}");
    }
}

mod hostile {
    use super::super::restore_folder;
    use firn_chunks::{ChunkList, ChunkRef, Encoder, ListId, segment::BlobRecord};
    use firn_formats::{
        Sha256,
        tar::{self, Entry, EntryKind},
    };
    use firn_store::shared::{
        BLOB_FLAG_NO_ZSTD_DIGEST, FolderBackend, SHARED_DOMAIN, SharedOptions, SharedStore,
    };
    use std::{os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

    fn store(dir: &Path) -> SharedStore {
        let backend = FolderBackend::new(&dir.join("store")).expect("a backend");
        let options = SharedOptions {
            cache_dir: dir.join("cache"),
            cache_bytes_max: 1 << 20,
            trusted_keys: Vec::new(),
            signing_key: None,
            pack_bytes_target: 1 << 20,
        };
        SharedStore::open(Arc::new(backend), options).expect("a store")
    }

    /// Whoever writes into the store can put any tar there.
    fn planted(store: &SharedStore, tar: &[u8]) -> ListId {
        let frame = Encoder::new(1).encode(tar);
        let list = ChunkList {
            chunks: vec![ChunkRef {
                id: frame.record().id,
                raw_length: tar.len() as u32,
            }],
        };
        let id = list.id();
        let run = store.run("a stranger").expect("a run");
        run.add_frame(&frame).expect("added");
        run.add_blob(BlobRecord {
            domain: SHARED_DOMAIN.to_owned(),
            flags: BLOB_FLAG_NO_ZSTD_DIGEST,
            list,
            identity_sha256: Sha256::of(tar).0,
            zstd_sha256: [0; 32],
            zstd_length: frame.frame().len() as u64,
        })
        .expect("added");
        run.publish().expect("published");
        store.refresh().expect("refreshed");
        id
    }

    fn entry(path: &str, kind: EntryKind, mode: u32) -> Vec<u8> {
        let mut out = Vec::new();
        let entry = Entry {
            path: path.as_bytes().to_vec(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: 7,
        };
        tar::header(&entry, &mut out).expect("a header");
        out
    }

    fn file(path: &str, mode: u32) -> Vec<u8> {
        let mut out = entry(path, EntryKind::Regular { size: 4 }, mode);
        out.extend_from_slice(b"evil");
        out.resize(out.len() + tar::padding(4), 0);
        out
    }

    /// Puts `to` in the place of `from` in the first header, and its checksum right: what the writer refuses
    /// to write.
    fn renamed(mut entry: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
        assert_eq!(from.len(), to.len());
        let at = entry
            .windows(from.len())
            .position(|window| window == from.as_bytes());
        let at = at.expect("the name");
        entry[at..at + to.len()].copy_from_slice(to.as_bytes());
        entry[148..156].copy_from_slice(b"        ");
        let sum: u32 = entry[..512].iter().map(|byte| u32::from(*byte)).sum();
        entry[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        entry
    }

    fn symlink(path: &str, target: &Path) -> Vec<u8> {
        let target = target.to_str().expect("a name").as_bytes().to_vec();
        entry(path, EntryKind::Symlink { target }, 0o777)
    }

    fn restore(dir: &Path, parts: &[Vec<u8>]) -> super::super::super::error::Result<()> {
        let store = store(dir);
        let mut tar = parts.concat();
        tar.resize(tar.len() + tar::TRAILER_BYTES, 0);
        let list = planted(&store, &tar);
        restore_folder(&store, list, &dir.join("home/top")).map(|_| ())
    }

    #[test]
    fn nothing_is_written_outside_the_folder() {
        let top = || entry("top", EntryKind::Directory, 0o755);
        let outside = |dir: &Path| dir.join("outside");
        type Case = fn(&Path) -> Vec<u8>;
        let cases: [Case; 4] = [
            |_| {
                renamed(
                    file("top/aa/outside", 0o644),
                    "top/aa/outside",
                    "top/../outside",
                )
            },
            |dir| [symlink("top/link", dir), file("top/link/outside", 0o644)].concat(),
            |dir| {
                [
                    symlink("top/link", dir),
                    entry("top/link/x", EntryKind::Directory, 0o755),
                ]
                .concat()
            },
            |dir| {
                let target = b"top/link/secret".to_vec();
                let hard = entry("top/mine", EntryKind::Hardlink { target }, 0o644);
                [symlink("top/link", dir), hard].concat()
            },
        ];
        for (index, case) in cases.iter().enumerate() {
            let dir = tempfile::tempdir().expect("a folder");
            std::fs::write(dir.path().join("secret"), "s").expect("a file");
            let tried = restore(dir.path(), &[top(), case(dir.path())]);
            assert!(tried.is_err(), "case {index}");
            assert!(!outside(dir.path()).exists() && !dir.path().join("home/outside").exists());
            assert!(!dir.path().join("x").exists(), "case {index}");
            assert!(!dir.path().join("home/top/mine").exists(), "case {index}");
        }
    }

    #[test]
    fn a_link_in_the_way_is_replaced_and_not_followed() {
        let dir = tempfile::tempdir().expect("a folder");
        let victim = dir.path().join("victim");
        std::fs::create_dir_all(dir.path().join("home/top")).expect("folder");
        std::fs::write(&victim, "precious").expect("file");
        std::os::unix::fs::symlink(&victim, dir.path().join("home/top/f")).expect("link");
        let top = entry("top", EntryKind::Directory, 0o755);
        restore(dir.path(), &[top, file("top/f", 0o4755)]).expect("restored");
        assert_eq!(std::fs::read(&victim).expect("victim"), b"precious");
        let written = dir.path().join("home/top/f");
        assert_eq!(std::fs::read(&written).expect("file"), b"evil");
        let mode = std::fs::symlink_metadata(&written)
            .expect("file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o755, "not set-user-id");
    }

    #[test]
    fn a_tar_that_ends_early_is_an_error() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = store(dir.path());
        let list = planted(&store, &entry("top", EntryKind::Directory, 0o755));
        assert!(restore_folder(&store, list, &dir.path().join("home/top")).is_err());
    }
}
