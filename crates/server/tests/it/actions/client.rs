//! The real `@actions/cache` saves and restores, in both versions of its protocol.

use firn_formats::actions::Scope;
use firn_testkit::TestServer;
use firn_testkit::rigs::program::{cache_dir, command, run, workspace};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::Path;

/// Which version of the protocol the client speaks, by what a runner tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    V1,
    V2,
}

/// A machine with a runner: its work folder, and what a job's environment says.
struct Runner<'a> {
    server: &'a TestServer,
    protocol: Protocol,
    folder: tempfile::TempDir,
    token: String,
}

impl<'a> Runner<'a> {
    fn new(server: &'a TestServer, protocol: Protocol, scopes: &[Scope]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("work")).unwrap();
        std::fs::create_dir(folder.path().join("temp")).unwrap();
        Self {
            token: server.actions_token("main", "acme/web", scopes),
            server,
            protocol,
            folder,
        }
    }

    fn work(&self) -> std::path::PathBuf {
        self.folder.path().join("work")
    }

    fn env(&self) -> Value {
        let url = format!("{}/", self.server.url());
        let (v2, github) = match self.protocol {
            Protocol::V1 => ("", "http://gitea.example"),
            Protocol::V2 => ("true", "https://github.com"),
        };
        json!({
            "ACTIONS_CACHE_URL": url, "ACTIONS_RESULTS_URL": url, "ACTIONS_RUNTIME_TOKEN": self.token,
            "ACTIONS_CACHE_SERVICE_V2": v2, "GITHUB_SERVER_URL": github,
            "RUNNER_TEMP": self.folder.path().join("temp"), "GITHUB_WORKSPACE": self.work(),
        })
    }

    fn call(&self, save: bool, paths: &[&str], key: &str, restore_keys: &[&str]) -> Value {
        json!({"save": save, "paths": paths, "key": key, "restoreKeys": restore_keys,
            "folder": self.work(), "env": self.env()})
    }

    /// Runs calls, one after the other, in one process.
    fn run(&self, calls: &[Value]) -> Vec<Value> {
        let module = cache_dir().join("node/node_modules/@actions/cache/lib/cache.js");
        assert!(
            module.is_file(),
            "@actions/cache is not there: run `make setup`"
        );
        let script = workspace().join("crates/server/tests/it/actions/client.mjs");
        let list = self.folder.path().join("calls.json");
        std::fs::write(&list, serde_json::to_vec(calls).unwrap()).unwrap();
        let mut node = command("node");
        node.args([&script, &module])
            .stdin(std::fs::File::open(&list).unwrap())
            .env(
                "GITHUB_SERVER_URL",
                self.env()["GITHUB_SERVER_URL"].as_str().unwrap(),
            );
        if self.protocol == Protocol::V2 {
            node.env("ACTIONS_CACHE_SERVICE_V2", "true");
        }
        let said = run(&mut node).ok();
        let line = said.lines().find_map(|line| line.strip_prefix("RESULTS "));
        let results = line.unwrap_or_else(|| panic!("no results:\n{said}"));
        serde_json::from_str(results).unwrap()
    }

    fn save(&self, paths: &[&str], key: &str) -> Value {
        self.run(&[self.call(true, paths, key, &[])]).remove(0)
    }

    fn restore(&self, paths: &[&str], key: &str, restore_keys: &[&str]) -> Value {
        self.run(&[self.call(false, paths, key, restore_keys)])
            .remove(0)
    }
}

/// Every file below a folder: its mode, its links, and its bytes or target.
fn tree(root: &Path) -> BTreeMap<String, (u32, u64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path
                .strip_prefix(root)
                .unwrap()
                .to_string_lossy()
                .into_owned();
            let metadata = path.symlink_metadata().unwrap();
            let mode = metadata.permissions().mode();
            if metadata.is_dir() {
                folders.push(path);
                found.insert(name, (mode, 0, Vec::new()));
            } else if metadata.is_symlink() {
                let target = std::fs::read_link(&path).unwrap();
                let target = target.to_string_lossy().into_owned().into_bytes();
                found.insert(name, (mode, 1, target));
            } else {
                found.insert(
                    name,
                    (mode, metadata.nlink(), std::fs::read(&path).unwrap()),
                );
            }
        }
    }
    found
}

fn fill(folder: &Path) {
    use crate::samples::noise;
    std::fs::create_dir_all(folder.join("deep/er")).unwrap();
    std::fs::write(folder.join("one byte"), b"x").unwrap();
    std::fs::write(folder.join("deep/er/noise"), noise(1, 3_000_000)).unwrap();
    std::fs::write(folder.join("deep/text"), "firn ".repeat(200_000)).unwrap();
    let script = folder.join("deep/run.sh");
    std::fs::write(&script, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::hard_link(&script, folder.join("hard link")).unwrap();
    std::os::unix::fs::symlink("deep/text", folder.join("link")).unwrap();
    for number in 0..500 {
        std::fs::write(
            folder.join(format!("deep/er/{number}")),
            format!("{number}"),
        )
        .unwrap();
    }
}

fn saves_and_restores(protocol: Protocol) {
    let server = TestServer::start();
    let main = Runner::new(&server, protocol, &[Scope::write("refs/heads/main")]);
    fill(&main.work().join("store"));
    std::fs::write(main.work().join("small"), b"x").unwrap();
    let before = tree(&main.work().join("store"));
    assert!(main.save(&["store"], "store-1").is_number());
    assert!(main.save(&["small"], "small").is_number());
    // Said to be there already: the client gives no id, and no error.
    assert_eq!(main.save(&["store"], "store-1"), -1);
    let scopes = [Scope::write("refs/heads/f"), Scope::read("refs/heads/main")];
    let branch = Runner::new(&server, protocol, &scopes);
    let found = branch.restore(&["store"], "store-2", &["other", "store-"]);
    assert_eq!(found, "store-1");
    assert!(tree(&branch.work().join("store")) == before, "files differ");
    assert_eq!(branch.restore(&["small"], "small", &[]), "small");
    assert_eq!(std::fs::read(branch.work().join("small")).unwrap(), b"x");
    // Other paths are another version.
    assert_eq!(branch.restore(&["other"], "store-1", &[]), Value::Null);
    // What a branch saves the default branch does not see.
    assert!(branch.save(&["small"], "of the branch").is_number());
    assert_eq!(main.restore(&["small"], "of the branch", &[]), Value::Null);
    assert_eq!(
        branch.restore(&["small"], "of the branch", &[]),
        "of the branch"
    );
    let reader = Runner::new(&server, protocol, &[Scope::read("refs/heads/main")]);
    std::fs::write(reader.work().join("small"), b"y").unwrap();
    assert_eq!(reader.save(&["small"], "refused"), -1);
    assert_eq!(reader.restore(&["small"], "small", &[]), "small");
    assert_eq!(super::staged(&server), 0);
}

#[test]
fn the_real_client_saves_and_restores_by_version_1() {
    saves_and_restores(Protocol::V1);
}

#[test]
fn the_real_client_saves_and_restores_by_version_2() {
    saves_and_restores(Protocol::V2);
}

/// More than the client sends in one request: blocks of 64 MiB in parallel, and 32 MiB by version 1.
fn in_many_parts(protocol: Protocol, bytes: usize) {
    use firn_formats::sha256::Sha256Hasher;
    let server = TestServer::start();
    let runner = Runner::new(&server, protocol, &[Scope::write("refs/heads/main")]);
    let file = runner.work().join("large");
    let mut out = std::fs::File::create(&file).unwrap();
    let block = crate::samples::noise(9, 1 << 20);
    let mut hasher = Sha256Hasher::new();
    for number in 0..bytes >> 20 {
        // Noise that is other noise each time.
        let mut block = block.clone();
        for (place, byte) in block.iter_mut().enumerate() {
            *byte ^= (number as u8).wrapping_mul(place as u8 | 1);
        }
        hasher.update(&block);
        std::io::Write::write_all(&mut out, &block).unwrap();
    }
    drop(out);
    assert!(runner.save(&["large"], "large").is_number());
    std::fs::remove_file(&file).unwrap();
    assert_eq!(runner.restore(&["large"], "large", &[]), "large");
    let mut again = Sha256Hasher::new();
    let mut file = std::fs::File::open(&file).unwrap();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match std::io::Read::read(&mut file, &mut buffer).unwrap() {
            0 => break,
            count => again.update(&buffer[..count]),
        }
    }
    assert_eq!(again.finish(), hasher.finish());
    assert_eq!(super::staged(&server), 0);
}

#[test]
fn the_real_client_sends_many_parts_by_version_1() {
    in_many_parts(Protocol::V1, 200 << 20);
}

#[test]
fn the_real_client_sends_a_gigabyte_by_version_2() {
    in_many_parts(Protocol::V2, 1 << 30);
}

/// What people cache most: `/nix/store` paths, read-only folders and all.
#[test]
fn the_real_client_saves_and_restores_a_nix_store() {
    let server = TestServer::start();
    let runner = Runner::new(&server, Protocol::V2, &[Scope::write("refs/heads/main")]);
    let store = runner.work().join("nix/store");
    let path = store.join("00gzizwnxlwb7ywpp3mykmdni4vllrs8-x-1.0");
    fill(&path);
    let reference = format!("#!{}/bin/sh\n", path.display());
    std::fs::write(path.join("wrapper"), reference.repeat(1000)).unwrap();
    for folder in [path.join("deep/er"), path.join("deep"), path.clone()] {
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o555)).unwrap();
    }
    let before = tree(&store);
    assert!(runner.save(&["nix/store"], "nix").is_number());
    let other = Runner::new(&server, Protocol::V2, &[Scope::read("refs/heads/main")]);
    assert_eq!(other.restore(&["nix/store"], "nix", &[]), "nix");
    assert!(
        tree(&other.work().join("nix/store")) == before,
        "files differ"
    );
}
