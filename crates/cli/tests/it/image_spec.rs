//! Images by a spec, with everything an image needs: built the same everywhere, run, and loaded into the daemons of
//! the machine.

use firn_testkit::rigs::{
    Release,
    closure::Closure,
    docker::Docker,
    nix::Nix,
    podman::Podman,
    program::{self, run},
    registry::Registry,
    serve::User,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const GREETING: &str = "Hello, world!";

fn alone() -> User {
    User::alone(env!("CARGO_BIN_EXE_firn"))
}

fn write_spec(user: &User, name: &str, spec: &Value) -> String {
    let file = user.home().join(name);
    std::fs::write(&file, spec.to_string()).unwrap();
    file.display().to_string()
}

/// Everything that a spec can say, but for a base.
fn full_spec(closure: &Closure) -> Value {
    json!({
        "name": "app", "tag": "1",
        "contents": [closure.root],
        "copyToRoot": closure.path_of("hello-2"),
        "config": {
            "Entrypoint": [closure.hello()], "User": "app", "WorkingDir": "/data", "StopSignal": "SIGINT",
            "Env": ["A=1"], "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/data": {}},
            "Labels": {"org.example": "x"},
            "Healthcheck": {"Test": ["CMD", "/bin/true"], "Interval": 1_000_000_000}
        },
        "annotations": {"org.opencontainers.image.source": "https://example.org"},
        "layers": [{"deps": [closure.path_of("libc6")]}],
        "maxLayers": 5,
        "perms": [{"path": "/usr/share", "mode": "0750", "uid": 1000, "gid": 1000}],
        "users": [{"name": "app", "uid": 1000, "home": "/home/app"}],
        "includeNixDB": true,
    })
}

/// Unpacks an image's layers one over the other.
fn unpack(user: &User, layout: &Path) -> PathBuf {
    let root = user.home().join("root");
    std::fs::create_dir(&root).unwrap();
    let read =
        |path: &Path| -> Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
    let blob = |digest: &Value| {
        let hex = digest.as_str().unwrap().trim_start_matches("sha256:");
        layout.join("blobs/sha256").join(hex)
    };
    let index = read(&layout.join("index.json"));
    let manifest = read(&blob(&index["manifests"][0]["digest"]));
    for layer in manifest["layers"].as_array().unwrap() {
        run(program::command("tar")
            .args(["--numeric-owner", "-xpf"])
            .arg(blob(&layer["digest"]))
            .arg("-C")
            .arg(&root))
        .ok();
    }
    root
}

/// Two homes, two times, one image; and what is in it is as the spec says.
#[test]
fn a_spec_gives_the_same_image_everywhere_and_all_that_it_says() {
    let closure = Closure::first();
    let mut digests = Vec::new();
    let users = [alone(), alone()];
    for user in &users {
        let spec = write_spec(user, "app.json", &full_spec(&closure));
        let layout = user.home().join("layout");
        let layout = layout.to_str().unwrap();
        let arguments = [
            "image", "build", "--spec", &spec, "--format", "oci", "--output", layout,
        ];
        let built = user.json(&arguments);
        assert_eq!(built["layers_total"], 4, "{built}");
        digests.push(built["digest"].as_str().unwrap().to_owned());
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    assert_eq!(digests[0], digests[1]);

    let layout = users[0].home().join("layout");
    let inspected = users[0].json(&["image", "inspect", layout.to_str().unwrap()]);
    assert_eq!(inspected["config"]["config"]["StopSignal"], "SIGINT");
    let annotation = &inspected["manifest"]["annotations"]["org.opencontainers.image.source"];
    assert_eq!(annotation, "https://example.org");
    let root = unpack(&users[0], &layout);
    let stat = |path: &str| {
        let path = root.join(path);
        run(program::command("stat").args(["-c", "%a %u:%g"]).arg(path)).ok()
    };
    assert_eq!(stat("tmp"), "1777 0:0");
    assert_eq!(stat("home/app"), "700 1000:1000");
    assert_eq!(stat("usr/share"), "750 1000:1000");
    assert_eq!(stat("usr/bin/hello"), "755 0:0");
    let passwd = std::fs::read_to_string(root.join("etc/passwd")).unwrap();
    assert!(
        passwd.ends_with("app:x:1000:1000::/home/app:/bin/sh\n"),
        "{passwd}"
    );
    knows_its_paths(&root, &closure);
}

/// The real Nix of both releases reads the image's database.
fn knows_its_paths(root: &Path, closure: &Closure) {
    for release in Release::ALL {
        let nix = Nix::new(release);
        // Both releases see its folder under one name.
        let state = nix.path("state");
        run(program::command("cp")
            .arg("-a")
            .arg(root.join("nix/var/nix"))
            .arg(&state))
        .ok();
        let ask = |arguments: &[&str]| {
            run(nix
                .command("nix-store")
                .env("NIX_STATE_DIR", &state)
                .args(arguments))
            .ok()
        };
        let mut known: Vec<String> = ask(&["-qR", &closure.root])
            .lines()
            .map(str::to_owned)
            .collect();
        let mut expected = closure.paths.clone();
        known.sort();
        expected.sort();
        assert_eq!(known, expected, "{release:?}");
        let hash = ask(&["-q", "--hash", &closure.root]);
        let here = run(program::command("nix-store").args(["-q", "--hash", &closure.root])).ok();
        assert_eq!(hash, here, "{release:?}");
        let roots = std::fs::read_dir(root.join("nix/var/nix/gcroots/firn")).unwrap();
        assert_eq!(roots.count(), 1);
    }
}

#[test]
fn images_are_loaded_into_podman_and_docker_without_a_file() {
    let closure = Closure::first();
    let hello = closure.hello();
    let user = alone();
    let shims = tempfile::tempdir().unwrap();
    let path = format!(
        "{}:{}",
        shims.path().display(),
        std::env::var("PATH").unwrap()
    );
    let temporary = tempfile::tempdir().unwrap();
    let firn = |arguments: &[&str]| {
        let said = run(user
            .bare_command()
            .env("PATH", &path)
            .env("TMPDIR", temporary.path())
            .args(["image"])
            .args(arguments)
            .args(["--entrypoint", &hello, "--json", &closure.root]))
        .ok();
        assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
        serde_json::from_str::<Value>(&said).unwrap()
    };
    let podman = Podman::new();
    podman.shim(shims.path());
    let loaded = firn(&["load", "--into", "podman", "--name", "localhost/hello:1"]);
    assert_eq!(podman.run("localhost/hello:1", &[]).ok(), GREETING);
    let id = podman.inspect("localhost/hello:1", "{{.Id}}").ok();
    assert_eq!(loaded["id"], format!("sha256:{id}"));
    firn(&["push", "--to", "containers-storage:localhost/hello:2"]);
    assert_eq!(podman.run("localhost/hello:2", &[]).ok(), GREETING);
    for release in Release::ALL {
        let docker = Docker::start(release);
        docker.shim(shims.path());
        firn(&["load", "--into", "docker", "--name", "hello:1"]);
        assert_eq!(docker.run("hello:1", &[]).ok(), GREETING, "{release:?}");
        firn(&["push", "--to", "docker-daemon:hello:2"]);
        assert_eq!(docker.run("hello:2", &[]).ok(), GREETING, "{release:?}");
    }
}

#[test]
fn a_daemon_that_refuses_is_told_of() {
    let closure = Closure::first();
    let user = alone();
    let shims = tempfile::tempdir().unwrap();
    program::shim(
        shims.path(),
        "docker",
        std::process::Command::new("sh").args(["-c", "echo no such daemon >&2; exit 1"]),
    );
    let path = format!(
        "{}:{}",
        shims.path().display(),
        std::env::var("PATH").unwrap()
    );
    let load = |path: &str| {
        run(user.bare_command().env("PATH", path).args([
            "image",
            "load",
            "--into",
            "docker",
            "--name",
            "a:1",
            &closure.root,
        ]))
        .refused()
    };
    let said = load(&path);
    assert!(
        said.contains("`docker load` failed: no such daemon"),
        "{said}"
    );
    let said = load(&user.home().display().to_string());
    assert!(said.contains("hint: `firn image build"), "{said}");
}

#[test]
fn layers_may_be_plain_tars() {
    let server = crate::server();
    let registry = Registry::start();
    let admin = User::admin(&server);
    let closure = Closure::first();
    let hello = closure.hello();
    let fixed = [
        "image",
        "push",
        "--compression",
        "none",
        "--entrypoint",
        &hello,
    ];
    let to = format!("{}/hello:1", registry.address());
    let podman = Podman::new();
    for (target, image) in [
        (
            ["--name", "hello:1"],
            format!("{}/main/hello:1", server.address()),
        ),
        (["--to", &to], to.clone()),
    ] {
        let pushed = admin.json(&[&fixed[..], &target, &[&closure.root]].concat());
        assert_eq!(pushed["layers_sent"], pushed["layers_total"], "{pushed}");
        podman.pull(&image, None).ok();
        assert_eq!(podman.run(&image, &[]).ok(), GREETING);
    }
}

#[test]
fn a_spec_that_is_wrong_is_told_with_what_to_do() {
    let user = alone();
    for (spec, what) in [
        (json!({"entrypoint": ["x"]}), "unknown field `entrypoint`"),
        (
            json!({"perms": [{"mode": "0700"}]}),
            "neither `path` nor `regex`",
        ),
        (json!({"created": "yesterday"}), "\"yesterday\" is no time"),
        (json!({"fromImage": "./none.tar"}), "there is no such file"),
        (json!({"maxLayers": 200}), "not from 1 to 127"),
    ] {
        let file = write_spec(&user, "bad.json", &spec);
        let out = user.home().join("out.tar").display().to_string();
        let said = user
            .firn(&["image", "build", "--spec", &file, "--output", &out])
            .refused();
        assert!(said.contains(what), "{said}");
    }
}
