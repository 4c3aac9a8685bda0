//! A whole system as an image: over a thousand paths in at most 100 layers, in little memory, and an update sends little
//! more than what changed. `tools/bench --only system` does the same with a gigabyte.

use firn_testkit::rigs::{
    program::{command, find, run, workspace},
    registry::Registry,
    serve::User,
};
use serde_json::Value;
use std::{path::Path, process::Command};

const LAYERS_MAX: u64 = 100;
const MEMORY_MAX: u64 = 300 << 20;
/// Runs a program and writes the most memory it had, in KiB, as the last line.
const PEAK: &str = "import os, sys; child = os.spawnv(os.P_NOWAIT, sys.argv[1], sys.argv[1:]); \
                    _, status, usage = os.wait4(child, 0); print(usage.ru_maxrss); \
                    sys.exit(os.waitstatus_to_exitcode(status))";

/// A store of a system in a folder, with these updates.
fn system(folder: &Path, updates: &[&str]) -> String {
    let mut make = command("python3");
    make.arg(workspace().join("tools/mkstore"))
        .args(["--megabytes", "60"]);
    for update in updates {
        make.args(["--update", update]);
    }
    run(make.arg(folder)).ok()
}

fn firn(user: &User, store: &Path, arguments: &[&str]) -> Command {
    let mut command = user.command();
    command
        .args(arguments)
        .arg("--json")
        .env("NIX_STORE_DIR", store.join("store"))
        .env("NIX_STATE_DIR", store.join("state"));
    command
}

fn json(command: &mut Command) -> Value {
    serde_json::from_str(&run(command).ok()).unwrap()
}

/// What a command says, and the most memory that it had, in bytes.
fn measured(command: &Command) -> (Value, u64) {
    let mut python = Command::new(find("python3"));
    python.args(["-c", PEAK]).arg(command.get_program());
    python.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => python.env(name, value),
            None => python.env_remove(name),
        };
    }
    let said = run(&mut python).ok();
    let (json, peak) = said.rsplit_once('\n').unwrap();
    let kib: u64 = peak.trim().parse().unwrap();
    (serde_json::from_str(json).unwrap(), kib << 10)
}

fn number(value: &Value, name: &str) -> u64 {
    value[name]
        .as_u64()
        .unwrap_or_else(|| panic!("no number {name:?} in {value}"))
}

#[test]
fn a_system_of_a_thousand_paths_is_pushed_and_updated() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    let to = format!("{}/team/system:1", registry.address());
    let user = User::alone(env!("CARGO_BIN_EXE_firn"));
    let push = ["image", "push", "--to", &to, "--no-paths"];
    let update = ["config", "week", "week", "base", "config"];

    let root = system(folder.path(), &[]);
    let (first, memory) = measured(&firn(&user, folder.path(), &[&push[..], &[&root]].concat()));
    assert!(memory < MEMORY_MAX, "{memory} bytes of memory");
    assert!(number(&first, "layers_total") <= LAYERS_MAX, "{first}");

    let (mut new, mut pushed) = (0, 0);
    for steps in 1..=update.len() {
        let root = system(folder.path(), &update[..steps]);
        let diff = json(&mut firn(
            &user,
            folder.path(),
            &["image", "diff", &to, &root],
        ));
        let (sent, memory) = measured(&firn(&user, folder.path(), &[&push[..], &[&root]].concat()));
        assert!(memory < MEMORY_MAX, "{memory} bytes of memory");
        assert!(number(&sent, "layers_total") <= LAYERS_MAX, "{sent}");
        assert!(number(&diff, "bytes_new") > 0, "{}", update[steps - 1]);
        new += number(&diff, "bytes_new");
        pushed += number(&diff, "bytes_pushed");
        // Layers are compressed; requests, config, manifest and history are counted too.
        assert!(
            number(&sent, "bytes_sent") < number(&diff, "bytes_pushed") + 1_000_000,
            "{sent}"
        );
    }
    let times = pushed as f64 / new as f64;
    assert!(
        times <= 1.1,
        "updates sent {pushed} bytes again, {times:.3} times the new {new}"
    );
}

#[test]
fn a_system_is_planned_whole() {
    let folder = tempfile::tempdir().unwrap();
    let root = system(folder.path(), &[]);
    let user = User::alone(env!("CARGO_BIN_EXE_firn"));
    let plan = json(&mut firn(&user, folder.path(), &["image", "plan", &root]));
    assert!(
        number(&plan, "layers_total") <= LAYERS_MAX,
        "{}",
        plan["layers_total"]
    );
    assert!(
        number(&plan, "paths_total") > 1000,
        "{}",
        plan["paths_total"]
    );
}
