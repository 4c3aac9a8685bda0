//! Stores without a server, by `firn` and by both Nix versions through `firn agent`.

use firn_testkit::rigs::Release;
use firn_testkit::rigs::agent::Agent;
use firn_testkit::rigs::closure::Closure;
use firn_testkit::rigs::nix::Nix;
use firn_testkit::rigs::program::{Outcome, command, run};
use firn_testkit::rigs::registry::Registry;
use firn_testkit::rigs::s3::S3;
use firn_testkit::rigs::serve::User;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What of the second version's root is new: half of two megabytes that do not compress.
const CHANGED_BYTES: u64 = 1_000_000;

/// A machine without a server to talk to.
struct Machine {
    user: User,
    /// Where its Nix store lies, if not in `/`.
    root: Option<PathBuf>,
}

impl Machine {
    fn new() -> Self {
        Self {
            user: User::alone(env!("CARGO_BIN_EXE_firn")),
            root: None,
        }
    }

    /// A machine whose Nix store lies below `root`.
    fn with_store(root: &Path) -> Self {
        Self {
            root: Some(root.to_owned()),
            ..Self::new()
        }
    }

    fn command(&self) -> Command {
        let mut command = self.user.bare_command();
        if let Some(root) = &self.root {
            command.env("NIX_STORE_DIR", root.join("nix/store"));
            command.env("NIX_STATE_DIR", root.join("nix/var/nix"));
        }
        command
    }

    fn firn(&self, arguments: &[&str]) -> Outcome {
        run(self.command().args(arguments))
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let text = run(self.command().args(arguments).arg("--json")).ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    fn agent(&self, arguments: &[&str]) -> Agent {
        let log = self.user.home().join("agent.log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_firn"));
        let own = self.command();
        for (name, value) in own.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Agent::start(&command, &log, arguments)
    }
}

/// A store in a folder.
struct Storage(tempfile::TempDir);

impl Storage {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("cannot make a temporary folder"))
    }

    fn with(closure: &Closure) -> Self {
        let storage = Self::new();
        let pushed = Machine::new().json(&["push", "--storage", storage.name(), &closure.root]);
        assert_eq!(pushed["paths_pushed"], closure.paths.len(), "{pushed}");
        storage
    }

    fn name(&self) -> &str {
        self.0.path().to_str().expect("a folder with a plain name")
    }

    /// How many packs there are.
    fn packs(&self) -> usize {
        let found = run(command("find")
            .arg(self.0.path().join("packs"))
            .args(["-type", "f"]))
        .ok();
        found.lines().count()
    }

    /// Changes a bit of most frames.
    fn damage(&self) {
        let packs = run(command("find")
            .arg(self.0.path().join("packs"))
            .args(["-type", "f"]))
        .ok();
        assert!(!packs.is_empty());
        for pack in packs.lines() {
            let mut bytes = std::fs::read(pack).unwrap();
            for byte in bytes.iter_mut().skip(10_000).step_by(20_000) {
                *byte ^= 1;
            }
            std::fs::write(pack, bytes).unwrap();
        }
    }
}

fn number(report: &Value, field: &str) -> u64 {
    report[field]
        .as_u64()
        .unwrap_or_else(|| panic!("{field}: {report}"))
}

#[track_caller]
fn assert_same(path: &str, other: &Path) {
    let dump = "for path; do nix-store --dump \"$path\" | sha256sum; done | uniq | wc -l";
    let different = run(command("sh").args(["-ec", dump, "sh", path]).arg(other)).ok();
    assert_eq!(different, "1", "{path}");
}

#[test]
fn nix_substitutes_from_a_folder_through_the_agent() {
    let closure = Closure::first();
    let storage = Storage::with(&closure);
    for release in Release::ALL {
        let nix = Nix::new(release);
        let machine = Machine::with_store(&nix.path("other"));
        let agent = machine.agent(&["--storage", storage.name()]);
        let (url, keys) = (agent.url.clone(), agent.keys.clone());

        let store = nix.path("by-nix-store");
        nix.realise(&store, &url, &keys, &[&closure.root]).ok();
        nix.verify(&store, &keys, &closure.root).ok();
        for path in &closure.paths {
            assert_same(path, &store.join(&path[1..]));
        }

        let store = nix.path("by-nix-copy");
        run(nix
            .command("nix")
            .args(["copy", "--from", &url, "--to"])
            .arg(&store)
            .args(["--option", "trusted-public-keys", &keys, &closure.root]))
        .ok();
        nix.verify(&store, &keys, &closure.root).ok();

        let other = "other-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";
        let store = nix.path("untrusted");
        nix.realise(&store, &url, other, &[&closure.root]).refused();

        let stats = agent.stop();
        assert!(
            number(&stats, "nars") >= 2 * closure.paths.len() as u64,
            "{stats}"
        );
        assert_eq!(number(&stats, "bytes_local"), 0, "{stats}");
    }
}

/// The agent keeps its key, and Nix what it was told: neither minds that the agent starts again.
#[test]
fn an_agent_that_starts_again_serves_what_nix_remembers() {
    let closure = Closure::first();
    let storage = Storage::with(&closure);
    let nix = Nix::new(Release::Trixie);
    let machine = Machine::with_store(&nix.path("other"));
    let agent = machine.agent(&["--storage", storage.name()]);
    let (url, keys) = (agent.url.clone(), agent.keys.clone());
    run(nix
        .command("nix")
        .args(["path-info", "--recursive", "--store", &url, &closure.root]))
    .ok();
    agent.stop();
    let listen = url.split('/').nth(2).unwrap();
    let agent = machine.agent(&["--storage", storage.name(), "--listen", listen]);
    assert_eq!((&agent.url, &agent.keys), (&url, &keys));
    let store = nix.path("store");
    nix.realise(&store, &url, &keys, &[&closure.root]).ok();
}

#[test]
fn a_rebuild_costs_what_is_new() {
    let (first, second) = (Closure::first(), Closure::second());
    let storage = Storage::with(&first);
    let pushed = Machine::new().json(&["push", "--storage", storage.name(), &second.root]);
    assert_eq!(pushed["paths_pushed"], 1, "{pushed}");
    let sent = number(&pushed, "bytes_sent");
    assert!(
        (CHANGED_BYTES..CHANGED_BYTES * 115 / 100).contains(&sent),
        "{pushed}"
    );

    for release in Release::ALL {
        let nix = Nix::new(release);
        let store = nix.path("store");
        let fill = |closure: &Closure| {
            // Each agent is a new process that has seen nothing.
            let machine = Machine::with_store(&store);
            let agent = machine.agent(&["--storage", storage.name()]);
            let (url, keys) = (agent.url.clone(), agent.keys.clone());
            nix.realise(&store, &url, &keys, &[&closure.root]).ok();
            nix.verify(&store, &keys, &closure.root);
            agent.stop()
        };
        let cold = fill(&first);
        assert!(number(&cold, "bytes_fetched") > 2 * CHANGED_BYTES, "{cold}");
        let warm = fill(&second);
        assert_eq!(number(&warm, "nars"), 1, "{warm}");
        let fetched = number(&warm, "bytes_fetched");
        assert!(fetched < CHANGED_BYTES * 115 / 100, "{warm}");
        assert!(
            number(&warm, "bytes_local") > CHANGED_BYTES * 85 / 100,
            "{warm}"
        );
        assert_same(&second.root, &store.join(&second.root[1..]));
    }
}

#[test]
fn a_damaged_store_never_gives_nix_wrong_bytes() {
    let closure = Closure::first();
    let storage = Storage::with(&closure);
    storage.damage();
    for release in Release::ALL {
        let nix = Nix::new(release);
        let machine = Machine::with_store(&nix.path("other"));
        let agent = machine.agent(&["--storage", storage.name()]);
        let store = nix.path("store");
        let root = &closure.root;
        nix.realise(&store, &agent.url, &agent.keys, &[root])
            .refused();
        assert!(!store.join(&root[1..]).exists());
        let log = agent.log();
        assert!(log.contains("a NAR breaks off"), "{log}");
        assert!(log.contains("/nix/store/"), "{log}");
    }
}

#[test]
fn a_second_store_and_a_server_stand_behind_the_first() {
    let (first, second) = (Closure::first(), Closure::second());
    let (one, two) = (Storage::new(), Storage::new());
    let server = crate::server();
    let admin = User::admin(&server);
    admin.firn(&["cache", "create", "team", "--private"]).ok();
    admin.firn(&["push", "--cache", "team", &second.root]).ok();
    let other = Storage::new();
    let machine = Machine::new();
    let token = server.token();
    for storage in [&one, &two] {
        machine
            .firn(&[
                "push",
                "--cache",
                "team",
                "--storage",
                storage.name(),
                &first.root,
            ])
            .ok();
    }
    one.damage();
    for release in Release::ALL {
        let nix = Nix::new(release);
        let machine = Machine::with_store(&nix.path("other"));
        let log = nix.path("agent.log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_firn"));
        command
            .env("FIRN_TOKEN", &token)
            .env("HOME", machine.user.home())
            .env("XDG_STATE_HOME", machine.user.home().join("state"))
            .env("NIX_STORE_DIR", nix.path("other"));
        let url = server.url();
        let arguments = ["--cache", "team", "--server", &url];
        let stores = [
            "--storage",
            one.name(),
            "--storage",
            two.name(),
            "--storage",
            other.name(),
        ];
        let agent = Agent::start(&command, &log, &[&arguments[..], &stores[..]].concat());
        assert!(
            agent.keys.contains(&server.public_key("team")),
            "{}",
            agent.keys
        );
        let store = nix.path("store");
        nix.realise(
            &store,
            &agent.url,
            &agent.keys,
            &[&first.root, &second.root],
        )
        .ok();
        nix.verify(&store, &agent.keys, &second.root).ok();
    }
}

#[test]
fn pull_brings_a_closure_from_a_store_with_nix_and_without() {
    let closure = Closure::first();
    let storage = Storage::with(&closure);
    let nix = Nix::new(Release::Bookworm);
    let store = nix.path("store");
    let machine = Machine::new();
    let mut pull = machine.command();
    pull.args(["pull", "--json", "--storage", storage.name(), &closure.root])
        .env("NIX_REMOTE", format!("local?root={}", store.display()))
        .env("NIX_CONF_DIR", nix.path(""));
    let pulled: Value = serde_json::from_str(&run(&mut pull).ok()).unwrap();
    assert_eq!(pulled["paths_fetched"], closure.paths.len(), "{pulled}");
    for path in &closure.paths {
        assert_same(path, &store.join(&path[1..]));
    }

    let nowhere = tempfile::tempdir().unwrap();
    let machine = Machine::with_store(&nowhere.path().join("none"));
    let folder = machine.user.home().join("root");
    let mut pull = machine.command();
    pull.env("PATH", machine.user.home())
        .args([
            "pull",
            "--json",
            "--storage",
            storage.name(),
            &closure.root,
            "--to",
        ])
        .arg(&folder);
    let pulled: Value = serde_json::from_str(&run(&mut pull).ok()).unwrap();
    assert_eq!(pulled["paths_total"], closure.paths.len(), "{pulled}");
    assert_eq!(pulled["paths_fetched"], closure.paths.len(), "{pulled}");
    assert!(
        number(&pulled, "bytes_received") > 2 * CHANGED_BYTES,
        "{pulled}"
    );
    for path in &closure.paths {
        assert_same(path, &folder.join(&path[1..]));
    }

    let absent = Closure::second();
    let said = machine.firn(&[
        "pull",
        "--storage",
        storage.name(),
        &absent.root,
        "--to",
        "x",
    ]);
    let said = said.refused();
    assert!(
        said.contains(storage.name()) && said.contains("is not in"),
        "{said}"
    );
}

/// Push, push again, and read on another machine, in one place.
fn fills_and_empties(location: &str, settings: &[(String, String)]) {
    let closure = Closure::first();
    let machine = Machine::new();
    let firn = |machine: &Machine, arguments: &[&str]| -> Value {
        let mut firn = machine.command();
        firn.args(arguments).args(["--json", "--storage", location]);
        firn.envs(settings.iter().cloned());
        serde_json::from_str(&run(&mut firn).ok()).unwrap()
    };
    let cold = firn(&machine, &["push", &closure.root]);
    assert_eq!(cold["paths_pushed"], closure.paths.len(), "{cold}");
    let again = firn(&Machine::new(), &["push", &closure.root]);
    assert_eq!(again["paths_pushed"], 0, "{again}");
    assert_eq!(number(&again, "bytes_sent"), 0, "{again}");

    let nowhere = tempfile::tempdir().unwrap();
    let other = Machine::with_store(nowhere.path());
    let folder = other.user.home().join("root");
    let to = folder.to_str().unwrap();
    let pulled = firn(&other, &["pull", &closure.root, "--to", to]);
    assert_eq!(pulled["paths_fetched"], closure.paths.len(), "{pulled}");
    for path in &closure.paths {
        assert_same(path, &folder.join(&path[1..]));
    }
}

#[test]
fn a_registry_holds_a_store() {
    let registry = Registry::start();
    fills_and_empties(&format!("oci://{}/Acme/cache", registry.address()), &[]);
}

#[test]
fn a_bucket_holds_a_store() {
    let server = S3::start();
    fills_and_empties(&format!("s3://{}/team", S3::BUCKET), &server.settings());
}

/// What a killed run left behind goes at the second collection, and nothing else does.
#[test]
fn gc_shows_its_plan_and_deletes_what_nothing_names() {
    let closure = Closure::first();
    let storage = Storage::with(&closure);
    let packs = storage.0.path().join("packs");
    let left_behind = packs.join("00").join(format!("{}.pack", "0".repeat(32)));
    std::fs::create_dir_all(packs.join("00")).unwrap();
    std::fs::write(&left_behind, vec![7; 100_000]).unwrap();

    let machine = Machine::new();
    let gc = |more: &[&str]| {
        let arguments = ["gc", "--storage", storage.name(), "--grace", "0s"];
        machine.json(&[&arguments, more].concat())[0].clone()
    };
    let plan = gc(&["--dry-run"]);
    assert_eq!(
        (&plan["dry_run"], number(&plan, "packs_marked")),
        (&true.into(), 1)
    );
    assert_eq!(gc(&["--dry-run"]), plan, "a plan changes nothing");
    assert_eq!(number(&gc(&[]), "packs_marked"), 1);
    assert!(left_behind.exists(), "one look is not enough");
    let done = gc(&[]);
    assert_eq!(number(&done, "packs_deleted"), 1, "{done}");
    assert_eq!(number(&done, "bytes_deleted"), 100_000);
    assert!(!left_behind.exists());

    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().to_str().unwrap();
    machine.json(&[
        "pull",
        "--storage",
        storage.name(),
        "--to",
        to,
        &closure.root,
    ]);
    assert_same(&closure.root, &folder.path().join(&closure.root[1..]));
    let nobody = machine
        .firn(&["gc", "--server", "http://127.0.0.1:1"])
        .refused();
    assert!(nobody.contains("hint: is the server there?"), "{nobody}");
}

/// Marked, then forgotten, then packs go; whoever pushes again brings all of it back.
#[test]
fn gc_forgets_paths_that_nobody_uses() {
    let closure = Closure::first();
    let paths = closure.paths.len() as u64;
    let storage = Storage::with(&closure);
    let machine = Machine::new();
    let gc = |more: &[&str]| {
        let arguments = ["gc", "--storage", storage.name(), "--grace", "0s"];
        machine.json(&[&arguments, more].concat())[0].clone()
    };
    let unused = ["--paths-unused-for", "0s"];
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(number(&gc(&[]), "paths_marked"), 0, "only if asked");
    let plan = gc(&[&unused[..], &["--dry-run"]].concat());
    assert_eq!(number(&plan, "paths_marked"), paths, "{plan}");
    assert_eq!(number(&gc(&unused), "paths_marked"), paths);
    let present = || {
        let status = Machine::new().json(&["status", "--storage", storage.name(), &closure.root]);
        number(&status, "paths_present")
    };
    assert_eq!(present(), paths, "one look is not enough");
    // Marked paths are pushed again, by their names: their chunks are there.
    let push = ["push", "--storage", storage.name(), &closure.root];
    let again = Machine::new().json(&push);
    assert_eq!(number(&again, "paths_pushed"), paths, "{again}");
    assert_eq!(number(&again, "chunks_sent"), 0, "{again}");
    // Nobody has looked while they were in use, so the marks stand.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let done = gc(&unused);
    assert_eq!(
        done["paths_expired"].as_array().unwrap().len() as u64,
        paths,
        "{done}"
    );
    assert_eq!(present(), 0);
    gc(&[]);
    gc(&[]);
    assert_eq!(storage.packs(), 0);
    let back = Machine::new().json(&push);
    assert_eq!(number(&back, "paths_pushed"), paths, "{back}");
    assert_eq!(present(), paths);
}

#[test]
fn status_tells_what_a_store_has() {
    let (first, second) = (Closure::first(), Closure::second());
    let storage = Storage::with(&first);
    let status = Machine::new().json(&["status", "--storage", storage.name(), &second.root]);
    assert_eq!(status["paths_total"], second.paths.len(), "{status}");
    assert_eq!(status["paths_present"], second.paths.len() - 1, "{status}");
    assert!(number(&status, "stored_bytes") > 1_000_000, "{status}");
    assert!(number(&status, "bytes_missing") > CHANGED_BYTES, "{status}");
}

/// Narinfos and segments carry the team's signature; who trusts another key sees nothing of them.
#[test]
fn a_signed_store_is_read_by_those_who_trust_its_key() {
    let closure = Closure::first();
    let storage = Storage::new();
    let machine = Machine::new();
    let secret = machine.user.home().join("team.secret");
    let key = |name: &str, file: &Path| {
        run(command("nix-store")
            .args(["--generate-binary-cache-key", name])
            .arg(file)
            .arg(file.with_extension("public")))
        .ok();
        std::fs::read_to_string(file.with_extension("public")).unwrap()
    };
    let team = key("team-1", &secret);
    let stranger = key("stranger-1", &machine.user.home().join("stranger.secret"));
    run(machine
        .command()
        .args(["push", "--storage", storage.name(), &closure.root])
        .env("FIRN_SIGNING_KEY", &secret))
    .ok();

    let present = |trusted: &str| {
        let mut status = machine.command();
        status.args([
            "status",
            "--json",
            "--storage",
            storage.name(),
            &closure.root,
        ]);
        let status = run(status.env("FIRN_TRUSTED_KEYS", trusted)).ok();
        let status: Value = serde_json::from_str(&status).unwrap();
        number(&status, "paths_present")
    };
    assert_eq!(present(&team), closure.paths.len() as u64);
    assert_eq!(present(&stranger), 0);

    let nix = Nix::new(Release::Trixie);
    let agent = machine.agent(&["--storage", storage.name()]);
    let store = nix.path("store");
    nix.realise(&store, &agent.url, team.trim(), &[&closure.root])
        .ok();
}

#[test]
fn what_is_wrong_is_said_with_a_hint() {
    let closure = Closure::first();
    let machine = Machine::new();
    let server = crate::server();
    let data = server.data().to_str().unwrap();
    for arguments in [
        &["push", "--storage", "nonsense", &closure.root][..],
        &["push", "--storage", "/a", "--storage", "/b", &closure.root],
        &["push", "--storage", data, &closure.root],
        &["pull", "--storage", "oci://127.0.0.1", &closure.root],
        &["agent"],
    ] {
        let said = machine.firn(arguments).refused();
        assert!(
            said.contains("error:") && said.contains("hint:"),
            "{arguments:?}: {said}"
        );
    }
}
