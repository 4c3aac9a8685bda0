//! A store folder to push from.

use firn_client::local_store::LocalStore;
use firn_formats::{Sha256, nix::StorePath, sha256::Sha256Hasher};
use firn_image::{
    archive::Archive,
    closure::{Closure, PathInfo},
};
use firn_testkit::noise;
use std::{os::unix::fs::PermissionsExt as _, path::Path};

/// A store folder of a few paths, some sharing files, and their closure.
pub(crate) struct Fixture {
    _dir: tempfile::TempDir,
    pub(crate) store: LocalStore,
    pub(crate) closure: Closure,
}

fn nar_of(root: &Path) -> (Sha256, u64) {
    let archive = Archive::nar(root).expect("archive");
    let mut hasher = Sha256Hasher::new();
    archive
        .stream(&mut |bytes| {
            hasher.update(bytes);
            Ok(())
        })
        .expect("stream");
    (hasher.finish(), archive.length())
}

impl Fixture {
    pub(crate) fn new(paths: usize) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let store = LocalStore::new(dir.path().join("state"), dir.path().join("store"));
        let mut infos: Vec<PathInfo> = Vec::new();
        for index in 0..paths {
            let name = format!("{:0>32}-path-{index}", to_base32(index));
            let path = StorePath::parse_base_name(&name).expect("a store path");
            let root = store.physical(&path);
            std::fs::create_dir_all(root.join("bin")).expect("folder");
            std::fs::write(root.join("bin/own"), noise(index as u64, 300_000)).expect("file");
            let executable = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(root.join("bin/own"), executable).expect("a mode");
            std::fs::write(root.join("bin/shared"), noise(1000, 200_000)).expect("file");
            std::fs::write(root.join("small"), name).expect("file");
            let (nar_hash, nar_size) = nar_of(&root);
            infos.push(PathInfo {
                references: infos
                    .last()
                    .map(|info| info.path.clone())
                    .into_iter()
                    .collect(),
                path,
                nar_hash,
                nar_size,
                deriver: None,
                signatures: Vec::new(),
                ca: None,
            });
        }
        let root = infos.last().expect("a path").path.clone();
        let closure = Closure::new(infos, vec![root]).expect("closed");
        Self {
            _dir: dir,
            store,
            closure,
        }
    }
}

fn to_base32(index: usize) -> String {
    const DIGITS: &[u8] = b"0123456789abcdfghijklmnpqrsvwxyz";
    [index / 32 % 32, index % 32]
        .map(|digit| char::from(DIGITS[digit]))
        .iter()
        .collect()
}
