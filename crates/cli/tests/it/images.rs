//! Images as skopeo, podman and Docker see them: pulled, run, copied in and out.

use firn_formats::Sha256;
use firn_testkit::rigs::closure::Closure;
use firn_testkit::rigs::docker::Docker;
use firn_testkit::rigs::podman::Podman;
use firn_testkit::rigs::program::{command, run};
use firn_testkit::rigs::serve::{Server, User};
use firn_testkit::rigs::{Release, skopeo};

const GREETING: &str = "Hello, world!";

/// Pushes an image that greets, and gives its digest.
fn push(server: &Server, name: &str, extra: &[&str]) -> String {
    let closure = Closure::first();
    let hello = closure.hello();
    let fixed = ["image", "push", "--name", name, "--entrypoint", &hello];
    let pushed = User::admin(server).json(&[&fixed, extra, &[&closure.root]].concat());
    pushed["digest"].as_str().expect("a digest").to_owned()
}

fn image(server: &Server, name: &str) -> String {
    format!("{}/main/{name}", server.address())
}

#[test]
fn podman_pulls_and_runs() {
    let server = crate::server();
    push(&server, "hello:1", &[]);
    let podman = Podman::new();
    let image = image(&server, "hello:1");
    podman.pull(&image, None).ok();
    assert_eq!(podman.run(&image, &[]).ok(), GREETING);
    assert_eq!(podman.run(&image, &["-g", "Firn"]).ok(), "Firn");
}

/// Docker 26 reads zstd layers.
#[test]
fn docker_26_pulls_and_runs() {
    let server = crate::server();
    push(&server, "hello:1", &[]);
    let docker = Docker::start(Release::Trixie);
    let image = image(&server, "hello:1");
    docker.pull(&image).ok();
    assert_eq!(docker.run(&image, &[]).ok(), GREETING);
}

/// Docker 20.10 reads gzip layers only.
#[test]
fn docker_20_10_pulls_and_runs_gzip_layers() {
    let server = crate::server();
    push(&server, "hello:gzip", &["--compression", "gzip"]);
    let docker = Docker::start(Release::Bookworm);
    let image = image(&server, "hello:gzip");
    docker.pull(&image).ok();
    assert_eq!(docker.run(&image, &[]).ok(), GREETING);
}

/// A Docker of one's own pushes too: its gzip layers come back byte for byte.
#[test]
fn docker_pushes_what_it_has() {
    let server = crate::server();
    push(&server, "hello:gzip", &["--compression", "gzip"]);
    for release in Release::ALL {
        let docker = Docker::start(release);
        docker.login(server.address(), &server.token()).ok();
        let from = image(&server, "hello:gzip");
        let to = image(&server, &format!("copied:{release:?}").to_lowercase());
        docker.pull(&from).ok();
        docker.tag(&from, &to).ok();
        docker.push(&to).ok();
        let podman = Podman::new();
        podman.pull(&to, None).ok();
        assert_eq!(podman.run(&to, &[]).ok(), GREETING, "{release:?}");
    }
}

/// Out of Firn into a layout and back under another name: the manifest does not change by a byte.
#[test]
fn skopeo_copies_out_and_in() {
    let server = crate::server();
    push(&server, "hello:1", &[]);
    let credentials = format!("token:{}", server.token());
    let source = format!("docker://{}", image(&server, "hello:1"));
    for release in Release::ALL {
        let folder = tempfile::tempdir().unwrap();
        let layout = format!("oci:{}:hello", folder.path().display());
        skopeo::copy(release, &["--preserve-digests"], &source, &layout).ok();
        let copy = format!(
            "docker://{}",
            image(&server, &format!("copy:{release:?}").to_lowercase())
        );
        let options = ["--preserve-digests", "--dest-creds", &credentials];
        skopeo::copy(release, &options, &layout, &copy).ok();
        assert_eq!(
            skopeo::raw_manifest(release, &credentials, &source).ok(),
            skopeo::raw_manifest(release, &credentials, &copy).ok(),
            "{release:?}"
        );
    }
}

/// An image made elsewhere: Docker's own manifest, gzip layers of another encoder.
#[test]
fn a_foreign_image_runs_from_firn() {
    let server = crate::server();
    push(&server, "hello:gzip", &["--compression", "gzip"]);
    let credentials = format!("token:{}", server.token());
    let source = format!("docker://{}", image(&server, "hello:gzip"));
    for release in Release::ALL {
        let folder = tempfile::tempdir().unwrap();
        let plain = format!("dir:{}", folder.path().display());
        skopeo::copy(release, &["--dest-decompress"], &source, &plain).ok();
        let foreign = image(&server, &format!("foreign:{release:?}").to_lowercase());
        let options = ["--format", "v2s2", "--dest-creds", &credentials];
        skopeo::copy(release, &options, &plain, &format!("docker://{foreign}")).ok();
        let docker = Docker::start(Release::Bookworm);
        docker.pull(&foreign).ok();
        assert_eq!(docker.run(&foreign, &[]).ok(), GREETING, "{release:?}");
    }
}

/// The bytes of each layer are what its digest says, whoever compressed it.
#[test]
fn layers_of_others_come_back_byte_for_byte() {
    let server = crate::server();
    push(&server, "hello:1", &[]);
    let credentials = format!("token:{}", server.token());
    let source = format!("docker://{}", image(&server, "hello:1"));
    let folder = tempfile::tempdir().unwrap();
    let plain = format!("dir:{}", folder.path().join("plain").display());
    skopeo::copy(Release::Trixie, &["--dest-decompress"], &source, &plain).ok();
    for format in ["gzip", "zstd"] {
        let to = image(&server, &format!("foreign:{format}"));
        let options = ["--dest-compress", "--dest-compress-format", format];
        let options = [&options[..], &["--dest-creds", &credentials]].concat();
        skopeo::copy(Release::Trixie, &options, &plain, &format!("docker://{to}")).ok();
        let manifest = server.get(&format!("/v2/main/foreign/manifests/{format}"));
        let manifest: serde_json::Value = serde_json::from_str(&manifest.ok()).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        assert!(layers.len() > 1);
        for layer in layers {
            let media_type = layer["mediaType"].as_str().unwrap();
            assert!(media_type.ends_with(format), "{media_type}");
            let digest = layer["digest"].as_str().unwrap();
            let file = folder.path().join("layer");
            let url = format!("{}/v2/main/foreign/blobs/{digest}", server.url());
            run(command("curl").arg("-sSfo").arg(&file).arg(&url)).ok();
            let bytes = std::fs::read(&file).unwrap();
            assert_eq!(bytes.len() as u64, layer["size"]);
            assert_eq!(format!("sha256:{}", Sha256::of(&bytes).hex()), digest);
        }
    }
}

/// What an image adds to a cache that has its store paths: documents, and the headers of its layers.
#[test]
fn a_layer_shares_its_chunks_with_the_store_paths() {
    let server = crate::server();
    let stored = || firn_testkit::folder::bytes_below(&server.data().join("packs"));
    User::admin(&server)
        .firn(&["push", &Closure::first().root])
        .ok();
    let paths = stored();
    push(&server, "hello:1", &[]);
    let added = stored() - paths;
    assert!(added * 20 < paths, "{added} bytes for {paths} of paths");
}

#[test]
fn a_private_image_needs_a_token() {
    let server = crate::server();
    let admin = User::admin(&server);
    admin.firn(&["cache", "create", "acme", "--private"]).ok();
    let closure = Closure::first();
    let hello = closure.hello();
    admin
        .firn(&[
            "image",
            "push",
            "--cache",
            "acme",
            "--name",
            "hello:1",
            "--entrypoint",
            &hello,
            &closure.root,
        ])
        .ok();
    let image = format!("{}/acme/hello:1", server.address());
    let podman = Podman::new();
    podman.pull(&image, None).refused();
    let credentials = format!("token:{}", server.token());
    podman.pull(&image, Some(&credentials)).ok();
    assert_eq!(podman.run(&image, &[]).ok(), GREETING);

    let docker = Docker::start(Release::Trixie);
    docker.pull(&image).refused();
    docker.login(server.address(), &server.token()).ok();
    docker.pull(&image).ok();
}

/// Two machines with other data, another number of threads and other memories make one image.
#[test]
fn the_same_image_has_the_same_digest_everywhere() {
    let closure = Closure::first();
    let hello = closure.hello();
    let digests: Vec<String> = ["1", "2", "5"]
        .into_iter()
        .map(|threads| {
            let server = crate::server();
            let out = run(User::admin(&server)
                .command()
                .env("RAYON_NUM_THREADS", threads)
                .args(["image", "push", "--name", "hello:1", "--entrypoint", &hello])
                .args(["--json", &closure.root]))
            .ok();
            let pushed: serde_json::Value = serde_json::from_str(&out).unwrap();
            pushed["digest"].as_str().unwrap().to_owned()
        })
        .collect();
    assert!(digests[0].starts_with("sha256:"));
    assert_eq!(digests[0], digests[1]);
    assert_eq!(digests[0], digests[2]);
}

/// Built into a file on one machine, loaded on another, with no registry between.
#[test]
fn an_archive_loads_into_docker() {
    let server = crate::server();
    let user = User::new(&server, None);
    let closure = Closure::first();
    let hello = closure.hello();
    let archive = user.home().join("hello.tar");
    run(user
        .bare_command()
        .args(["image", "build", "--format", "docker-archive", "--output"])
        .arg(&archive)
        .args(["--name", "hello:1", "--entrypoint", &hello, &closure.root]))
    .ok();
    for release in Release::ALL {
        let docker = Docker::start(release);
        docker.load(&archive).ok();
        assert_eq!(docker.run("hello:1", &[]).ok(), GREETING, "{release:?}");
    }
}

/// An image made elsewhere, pushed by a machine without Nix.
#[test]
fn an_archive_is_pushed_without_nix() {
    let server = crate::server();
    let user = User::admin(&server);
    let closure = Closure::first();
    let hello = closure.hello();
    for format in ["oci-archive", "docker-archive"] {
        let archive = user.home().join(format);
        run(user
            .bare_command()
            .args(["image", "build", "--format", format, "--output"])
            .arg(&archive)
            .args(["--name", "hello:1", "--entrypoint", &hello, &closure.root]))
        .ok();
        let name = format!("{format}:1");
        run(user
            .command()
            .env("PATH", user.home())
            .args(["image", "push", "--name", &name, "--archive"])
            .arg(&archive))
        .ok();
        let podman = Podman::new();
        let image = image(&server, &name);
        podman.pull(&image, None).ok();
        assert_eq!(podman.run(&image, &[]).ok(), GREETING, "{format}");
    }
}

/// What is written into a layout is what a push stores: one composer.
#[test]
fn a_layout_holds_the_image_that_a_push_stores() {
    let server = crate::server();
    let digest = push(&server, "hello:1", &[]);
    let user = User::new(&server, None);
    let closure = Closure::first();
    let hello = closure.hello();
    let layout = user.home().join("layout");
    run(user
        .bare_command()
        .args(["image", "build", "--format", "oci", "--output"])
        .arg(&layout)
        .args(["--name", "hello:1", "--entrypoint", &hello, &closure.root]))
    .ok();
    let index = std::fs::read_to_string(layout.join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    assert_eq!(index["manifests"][0]["digest"], digest, "{index}");

    let credentials = format!("token:{}", server.token());
    let copy = image(&server, "from-layout:1");
    let source = format!("oci:{}", layout.display());
    let options = ["--preserve-digests", "--dest-creds", &credentials];
    skopeo::copy(
        Release::Trixie,
        &options,
        &source,
        &format!("docker://{copy}"),
    )
    .ok();
    let podman = Podman::new();
    podman.pull(&copy, None).ok();
    assert_eq!(podman.run(&copy, &[]).ok(), GREETING);
}
