//! Images upon others and for several platforms: in registries.

use firn_testkit::rigs::{
    Release,
    closure::Closure,
    docker::Docker,
    ghcr::{Ghcr, Quirks, WRITER},
    oci_tools::OciTools,
    podman::Podman,
    program::{self, run},
    registry::Registry,
    serve::User,
    skopeo,
};
use serde_json::{Value, json};

const GREETING: &str = "Hello, world!";

fn alone() -> User {
    User::alone(env!("CARGO_BIN_EXE_firn"))
}

/// Pushes an image to build upon; gives its layers.
fn push_base(user: &User, closure: &Closure, to: &str, creds: &[&str]) -> u64 {
    let fixed = [
        "image",
        "push",
        "--to",
        to,
        "--no-paths",
        "--env",
        "BASE=1",
        "--max-layers",
        "3",
    ];
    let libc = closure.path_of("libc6");
    let report = user.json(&[&fixed, creds, &["--compression", "gzip", &libc]].concat());
    report["layers_total"].as_u64().unwrap()
}

/// In a registry like GitHub's the base's layers are mounted from its repository, and sent to another registry.
#[test]
fn a_base_in_a_registry_is_mounted_or_copied() {
    let ghcr = Ghcr::with(Quirks::calm());
    let closure = Closure::first();
    let hello = closure.hello();
    let creds = ["--dest-creds", WRITER];
    let base = format!("{}/acme/base:1", ghcr.address());
    let below = push_base(&alone(), &closure, &base, &creds);
    ghcr.asked();

    let to = format!("{}/acme/app:1", ghcr.address());
    // crane's validate knows no zstd.
    let common = [
        "--from-image",
        &base,
        "--entrypoint",
        &hello,
        "--compression",
        "gzip",
        &closure.root,
    ];
    let push = ["image", "push", "--to", &to];
    let pushed = alone().json(&[&push[..], &creds, &common].concat());
    let asked = ghcr.asked();
    let mounts = asked
        .iter()
        .filter(|asked| asked.path.contains("from=acme"));
    let mounted = mounts.filter(|asked| asked.status == 201).count() as u64;
    assert_eq!(mounted, below, "{asked:#?}");
    // The base is of store paths too, so ours may be among its layers.
    assert!(pushed["layers_reused"].as_u64() >= Some(below), "{pushed}");
    assert!(pushed["layers_sent"].as_u64() > Some(0), "{pushed}");
    let podman = Podman::new();
    podman.pull(&to, Some(WRITER)).ok();
    assert_eq!(podman.run(&to, &[]).ok(), GREETING);
    let env = podman.inspect(&to, "{{.Config.Env}}").ok();
    assert!(env.contains("BASE=1"), "{env}");

    let registry = Registry::start();
    let elsewhere = format!("{}/app:1", registry.address());
    let push = ["image", "push", "--to", &elsewhere, "--from-creds", WRITER];
    let arguments = [&push[..], &common].concat();
    let copied = alone().json(&arguments);
    assert!(
        copied["layers_sent"].as_u64() > pushed["layers_sent"].as_u64(),
        "{copied}"
    );
    assert_eq!(copied["digest"], pushed["digest"], "{copied}");
    let again = alone().json(&arguments);
    assert_eq!(again["layers_sent"], 0, "{again}");
    validated(&registry, &elsewhere);
}

fn validated(registry: &Registry, image: &str) {
    let server = crate::server();
    let tools = OciTools::logged_in(&server);
    tools.crane(&["validate", "--remote", image]).ok();
    for release in Release::ALL {
        let copy = tempfile::tempdir().unwrap();
        let to = format!("dir:{}", copy.path().display());
        skopeo::copy(release, &["--all"], &format!("docker://{image}"), &to).ok();
    }
    assert!(image.starts_with(registry.address()));
}

/// From a docker-archive of either kind, a layout and the Firn server's own cache, into Firn and a file.
#[test]
fn a_base_of_any_kind_runs_everywhere() {
    let server = crate::server();
    let admin = User::admin(&server);
    let closure = Closure::first();
    let (hello, libc) = (closure.hello(), closure.path_of("libc6"));
    let mut bases = vec!["base:1".to_owned()];
    let fixed = [
        "image",
        "push",
        "--name",
        "base:1",
        "--compression",
        "gzip",
        &libc,
    ];
    admin.json(&fixed);
    for format in ["oci", "oci-archive", "docker-archive", "docker-legacy"] {
        let file = admin.home().join(format).display().to_string();
        let fixed = ["image", "build", "--format", format, "--output", &file];
        admin.json(
            &[
                &fixed[..],
                &["--name", "base:1", "--compression", "gzip", &libc],
            ]
            .concat(),
        );
        bases.push(file);
    }
    let podman = Podman::new();
    let docker = Docker::start(Release::Bookworm);
    for (number, base) in bases.iter().enumerate() {
        let name = format!("app:{number}");
        let common = [
            "--from-image",
            base,
            "--entrypoint",
            &hello,
            "--compression",
            "gzip",
        ];
        let push = ["image", "push", "--name", &name];
        admin.json(&[&push[..], &common, &[&closure.root]].concat());
        let image = format!("{}/main/{name}", server.address());
        podman.pull(&image, None).ok();
        assert_eq!(podman.run(&image, &[]).ok(), GREETING, "{base}");
        let file = admin.home().join(format!("app-{number}.tar"));
        let build = ["image", "build", "--format", "docker-archive", "--output"];
        let build = [&build[..], &[file.to_str().unwrap(), "--name", &name]].concat();
        admin.json(&[&build[..], &common, &[&closure.root]].concat());
        docker.load(&file).ok();
        assert_eq!(docker.run(&name, &[]).ok(), GREETING, "{base}");
    }
}

/// One image for two platforms out of two specs, into a registry and into Firn.
#[test]
fn an_index_is_put_together_from_anywhere() {
    let server = crate::server();
    let registry = Registry::start();
    let admin = User::admin(&server);
    let closure = Closure::first();
    let spec = |architecture: &str| {
        let spec = json!({"architecture": architecture, "contents": closure.root, "compressor": "gz",
            "config": {"Entrypoint": [closure.hello()]}});
        write(&admin, &spec)
    };
    let one = |architecture: &str| format!("{}/team/one:{architecture}", registry.address());
    let mut members = Vec::new();
    for architecture in ["arm64", "amd64"] {
        let (spec, to) = (spec(architecture), one(architecture));
        admin.json(&["image", "push", "--no-paths", "--spec", &spec, "--to", &to]);
        members.push(to);
    }
    let to = format!("{}/team/all:1", registry.address());
    let index = admin.json(&["image", "index", "--to", &to, &members[0], &members[1]]);
    assert_eq!(
        index["platforms"],
        json!(["linux/amd64", "linux/arm64"]),
        "{index}"
    );
    assert_eq!(index["blobs_sent"], 0, "they are mounted: {index}");
    let turned = admin.json(&["image", "index", "--to", &to, &members[1], &members[0]]);
    assert_eq!(index["digest"], turned["digest"]);
    validated(&registry, &to);

    let layout = admin.home().join("arm64").display().to_string();
    let spec = spec("arm64");
    admin.json(&[
        "image", "build", "--format", "oci", "--spec", &spec, "--output", &layout,
    ]);
    let here = admin.json(&["image", "index", "--name", "all:1", &one("amd64"), &layout]);
    assert_eq!(here["digest"], index["digest"], "{here}");
    let image = format!("{}/main/all:1", server.address());
    let tools = OciTools::logged_in(&server);
    tools.crane(&["validate", "--remote", &image]).ok();
    let podman = Podman::new();
    podman.pull(&image, None).ok();
    assert_eq!(podman.run(&image, &[]).ok(), GREETING);
    let twice = [
        "image",
        "index",
        "--name",
        "all:2",
        &one("amd64"),
        &one("amd64"),
    ];
    assert_eq!(admin.json(&twice)["platforms"], json!(["linux/amd64"]));
}

/// Beside the image, by the list of referrers or the tag that stands in for it; the same for the same closure.
/// A root file system with Debian's links, a shell and what that needs; gives the layer.
fn shell_layer(tools: &OciTools) -> String {
    let root = tools.folder().join("rootfs");
    for folder in ["usr/bin", "usr/lib", "usr/lib64"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    for name in ["bin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name)).unwrap();
    }
    let libraries = run(program::command("ldd").arg("/bin/sh")).ok();
    let words = libraries
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    for file in words.chain(["/bin/sh"]) {
        let place = root.join(file.trim_start_matches('/'));
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::copy(file, place).unwrap();
    }
    let tar = tools.folder().join("shell.tar").display().to_string();
    run(program::command("tar")
        .args(["-cf", &tar, "-C"])
        .arg(&root)
        .arg("."))
    .ok();
    tar
}

/// Links over a base whose `/bin` is a link itself: its shell still runs, and finds what was linked.
#[test]
fn a_base_like_debians_keeps_its_programs() {
    let server = crate::server();
    let tools = OciTools::logged_in(&server);
    let admin = User::admin(&server);
    let closure = Closure::first();
    let base = format!("{}/main/shell:1", server.address());
    let layer = shell_layer(&tools);
    tools
        .crane(&["append", "--oci-empty-base", "-f", &layer, "-t", &base])
        .ok();
    tools
        .crane(&[
            "mutate",
            &base,
            "--set-platform",
            "linux/amd64",
            "-t",
            &base,
        ])
        .ok();
    let hello = closure.path_of("hello-2");
    let podman = Podman::new();
    for (tag, how) in [("linked", vec![]), ("copied", vec!["--copy-to-root"])] {
        let name = format!("app:{tag}");
        let fixed = ["image", "push", "--name", &name, "--from-image", "shell:1"];
        let program = ["--entrypoint", "/bin/sh", "--cmd", "-c", "--cmd", "hello"];
        let root = [&how[..], &[hello.as_str()]].concat();
        let spec = write(&admin, &json!({}));
        let pushed = [&fixed[..], &["--spec", &spec], &program, &root].concat();
        admin.json(&pushed);
        let image = format!("{}/main/{name}", server.address());
        podman.pull(&image, None).ok();
        assert_eq!(podman.run(&image, &[]).ok(), GREETING, "{tag}");
    }
}

fn write(user: &User, spec: &Value) -> String {
    let file = user.home().join("spec.json");
    std::fs::write(&file, spec.to_string()).unwrap();
    file.display().to_string()
}
