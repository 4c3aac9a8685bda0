//! A store of a few paths in a temporary folder.

use firn_chunks::{ChunkList, boundaries::V1};
use firn_formats::{Sha256, nix::StorePath, sha256::Sha256Hasher};
use firn_image::{
    archive::Archive,
    closure::{Closure, PathInfo},
    compose::{PlannedImage, plan_image_in},
    spec::ImageSpec,
};
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

pub(crate) const HASHES: [&str; 3] = [
    "0000000000000000000000000000000a",
    "0000000000000000000000000000000b",
    "0000000000000000000000000000000c",
];

pub(crate) struct Store {
    folder: TempDir,
}

impl Store {
    /// `libc` (a: large, with an executable), `tool` (b: refers to it), `app` (c: refers to both).
    pub(crate) fn new() -> Self {
        let store = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let libc = store.local("libc");
        write(&libc.join("lib/libc.so.6"), &noise(300_000, 1), 0o555);
        write(&libc.join("lib/empty"), b"", 0o444);
        fs::create_dir(libc.join("lib/nothing")).unwrap();
        symlink("libc.so.6", libc.join("lib/libc.so")).unwrap();
        write(&libc.join("share/notes"), b"libc\n", 0o444);
        let tool = store.local("tool");
        write(&tool.join("bin/tool"), &noise(40_000, 2), 0o555);
        write(&tool.join("etc/tool.conf"), b"x = 1\n", 0o444);
        write(&tool.join("share/notes"), b"tool\n", 0o444);
        let app = store.local("app");
        write(&app.join("bin/app"), &noise(5_000, 3), 0o555);
        write(&app.join("share/doc/app"), b"read me\n", 0o444);
        write(
            &app.join(format!("long/{}/{}", "d".repeat(120), "f".repeat(120))),
            b"long\n",
            0o444,
        );
        store
    }

    pub(crate) fn dir(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn path(&self, name: &str) -> StorePath {
        let hash = HASHES[["libc", "tool", "app"]
            .iter()
            .position(|n| *n == name)
            .unwrap()];
        StorePath::parse_base_name(&format!("{hash}-{name}")).unwrap()
    }

    pub(crate) fn local(&self, name: &str) -> PathBuf {
        self.dir().join(self.path(name).to_string())
    }

    pub(crate) fn closure(&self, roots: &[&str]) -> Closure {
        let info = |name: &str, references: &[&str]| {
            let archive = Archive::nar(&self.local(name)).unwrap();
            PathInfo {
                path: self.path(name),
                nar_hash: sha256(&archive),
                nar_size: archive.length(),
                references: references.iter().map(|name| self.path(name)).collect(),
                deriver: None,
                signatures: Vec::new(),
                ca: None,
            }
        };
        let paths = vec![
            info("libc", &["libc"]),
            info("tool", &["libc"]),
            info("app", &["libc", "tool"]),
        ];
        let roots = roots.iter().map(|name| self.path(name)).collect();
        Closure::new(paths, roots).unwrap()
    }

    pub(crate) fn image(&self, roots: &[&str], spec: ImageSpec) -> PlannedImage {
        plan_image_in(self.dir(), self.closure(roots), spec).unwrap()
    }
}

pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Bytes that do not compress.
pub(crate) fn noise(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(count).collect()
}

pub(crate) fn bytes(archive: &Archive) -> Vec<u8> {
    let mut all = Vec::new();
    archive
        .stream(&mut |block| {
            all.extend_from_slice(block);
            Ok(())
        })
        .unwrap();
    assert_eq!(all.len() as u64, archive.length());
    all
}

pub(crate) fn sha256(archive: &Archive) -> Sha256 {
    let mut hasher = Sha256Hasher::new();
    hasher.update(&bytes(archive));
    hasher.finish()
}

pub(crate) fn chunk(archive: &Archive) -> ChunkList {
    archive.chunk(V1, &|_| None).unwrap()
}

/// Standard output of a program that must succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
