//! The commands that the documentation shows, run as they stand there.

use firn_testkit::rigs::{
    closure::Closure,
    podman::Podman,
    program::{self, run},
    registry::Registry,
    serve::User,
};
use serde_json::json;

/// The registry of the examples.
const REGISTRY: &str = "127.0.0.1:5000";

/// What stands after `$ ` in the console blocks of a document.
fn commands(document: &str) -> Vec<String> {
    let path = program::workspace().join("docs").join(document);
    let text = std::fs::read_to_string(path).unwrap();
    let blocks = text.split("```console\n").skip(1);
    let lines = blocks.flat_map(|block| block.split("```").next().unwrap_or_default().lines());
    lines
        .filter_map(|line| line.strip_prefix("$ "))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_commands_of_the_image_spec_work() {
    let registry = Registry::start();
    let closure = Closure::first();
    let user = User::alone(env!("CARGO_BIN_EXE_firn"));
    for (name, architecture) in [("app", "amd64"), ("amd64", "amd64"), ("arm64", "arm64")] {
        let spec = json!({
            "name": name, "tag": "1", "architecture": architecture, "contents": [closure.root],
            "config": {"Entrypoint": [closure.hello()]},
        });
        let file = user.home().join(format!("{name}.json"));
        std::fs::write(file, spec.to_string()).unwrap();
    }
    let bin = user.home().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let podman = Podman::new();
    podman.shim(&bin);
    program::shim(
        &bin,
        "firn",
        &std::process::Command::new(env!("CARGO_BIN_EXE_firn")),
    );
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let commands = commands("image-spec.md");
    assert!(commands.len() >= 6, "{commands:?}");
    for command in commands {
        let line = command.replace(REGISTRY, registry.address());
        let mut shell = program::command("sh");
        for (name, value) in user.bare_command().get_envs() {
            if let Some(value) = value {
                shell.env(name, value);
            }
        }
        run(shell
            .env("PATH", &path)
            .current_dir(user.home())
            .args(["-c", &line]))
        .ok();
    }
    assert_eq!(podman.run("localhost/app:1", &[]).ok(), "Hello, world!");
}
