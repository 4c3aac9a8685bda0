//! crane, oras and containerd against the registry, and images of unusual shapes.

use firn_testkit::rigs::containerd::Containerd;
use firn_testkit::rigs::oci_tools::OciTools;
use firn_testkit::rigs::podman::Podman;
use firn_testkit::rigs::program::{self, run};
use firn_testkit::rigs::serve::Server;
use firn_testkit::rigs::{Release, skopeo};
use std::io::Write as _;
use std::path::{Path, PathBuf};

fn image(server: &Server, name: &str) -> String {
    format!("{}/main/{name}", server.address())
}

/// A tar of one file of these bytes.
fn tar(folder: &Path, name: &str, content: &[u8]) -> PathBuf {
    let content_file = folder.join(format!("{name}.txt"));
    std::fs::write(&content_file, content).unwrap();
    let tar = folder.join(format!("{name}.tar"));
    run(program::command("tar")
        .arg("--create")
        .arg("--file")
        .arg(&tar)
        .arg("--directory")
        .arg(folder)
        .arg(format!("{name}.txt")))
    .ok();
    tar
}

/// Pushes an image of one layer on nothing, and gives its digest.
fn append(tools: &OciTools, layer: &Path, image: &str) -> String {
    let layer = layer.to_str().unwrap();
    let pushed = tools
        .crane(&["append", "--oci-empty-base", "-f", layer, "-t", image])
        .ok();
    let digest = pushed.rsplit_once('@').expect("crane names the digest").1;
    digest.to_owned()
}

#[test]
fn crane_pushes_pulls_copies_and_validates() {
    let server = crate::server();
    let tools = OciTools::logged_in(&server);
    let layer = tar(tools.folder(), "layer", b"by crane");
    let (first, second) = (image(&server, "crane:1"), image(&server, "crane-copy:1"));
    let digest = append(&tools, &layer, &first);
    tools.crane(&["validate", "--remote", &first]).ok();
    assert_eq!(tools.crane(&["digest", &first]).ok(), digest);
    tools.crane(&["copy", &first, &second]).ok();
    tools.crane(&["validate", "--remote", &second]).ok();
    assert_eq!(tools.crane(&["digest", &second]).ok(), digest);
    tools.crane(&["tag", &first, "other"]).ok();
    let tags = tools.crane(&["ls", &image(&server, "crane")]).ok();
    assert_eq!(tags.lines().collect::<Vec<_>>(), ["1", "other"]);
    let layout = tools.folder().join("layout");
    tools
        .crane(&["pull", "--format", "oci", &second, layout.to_str().unwrap()])
        .ok();
    let third = image(&server, "crane-back:1");
    tools
        .crane(&["push", layout.to_str().unwrap(), &third])
        .ok();
    tools.crane(&["validate", "--remote", &third]).ok();
    tools
        .crane(&["delete", &image(&server, "crane:other")])
        .ok();
    tools.crane(&["validate", "--remote", &first]).ok();
    tools
        .crane(&["delete", &format!("{}@{digest}", image(&server, "crane"))])
        .ok();
    tools.crane(&["validate", "--remote", &first]).refused();
    tools.crane(&["validate", "--remote", &second]).ok();
}

/// Signatures and bills of materials are artifacts that name the image as their subject.
#[test]
fn oras_attaches_an_artifact_and_finds_it() {
    let server = crate::server();
    let tools = OciTools::logged_in(&server);
    let subject = image(&server, "app:1");
    std::fs::write(tools.folder().join("data.txt"), "data").unwrap();
    std::fs::write(tools.folder().join("sbom.json"), "{\"bill\": 1}").unwrap();
    let plain = "--plain-http";
    tools
        .oras(&[
            "push",
            plain,
            &subject,
            "--artifact-type",
            "application/x.app",
            "data.txt",
        ])
        .ok();
    let kind = "application/x.sbom";
    tools
        .oras(&[
            "attach",
            plain,
            &subject,
            "--artifact-type",
            kind,
            "sbom.json",
        ])
        .ok();
    for filter in [&[][..], &["--artifact-type", kind]] {
        let asked = [
            &["discover", plain, "--format", "json", &subject][..],
            filter,
        ]
        .concat();
        let found: serde_json::Value = serde_json::from_str(&tools.oras(&asked).ok()).unwrap();
        assert_eq!(found["referrers"][0]["artifactType"], kind, "{found}");
    }
    let none = ["--artifact-type", "application/x.other"];
    let asked = [
        &["discover", plain, "--format", "json", &subject][..],
        &none,
    ]
    .concat();
    let found: serde_json::Value = serde_json::from_str(&tools.oras(&asked).ok()).unwrap();
    assert!(
        found["referrers"].as_array().is_none_or(Vec::is_empty),
        "{found}"
    );
    // An image and all that refers to it.
    let copy = image(&server, "copy:1");
    tools
        .oras(&[
            "copy",
            "--recursive",
            "--from-plain-http",
            "--to-plain-http",
            &subject,
            &copy,
        ])
        .ok();
    let out = tools.folder().join("out");
    tools
        .oras(&["pull", plain, &copy, "--output", out.to_str().unwrap()])
        .ok();
    assert_eq!(std::fs::read(out.join("data.txt")).unwrap(), b"data");
    let found = tools
        .oras(&["discover", plain, "--format", "json", &copy])
        .ok();
    assert!(found.contains(kind), "{found}");
}

#[test]
fn containerd_pulls_and_pushes() {
    let server = crate::server();
    let tools = OciTools::logged_in(&server);
    let layer = tar(tools.folder(), "layer", b"for containerd");
    let first = image(&server, "ctr:1");
    firn_testkit::rigs::serve::User::admin(&server)
        .firn(&["cache", "create", "team", "--private"])
        .ok();
    let second = format!("{}/team/ctr:1", server.address());
    // All of it is here, so that its manifest is all that is sent.
    let renamed = image(&server, "ctr:2");
    append(&tools, &layer, &first);
    let user = format!("token:{}", server.token());
    let containerd = Containerd::start();
    let fixed = ["images", "pull", "--plain-http", "--all-platforms"];
    containerd.ctr(&[&fixed[..], &[&first]].concat()).ok();
    let push = ["images", "push", "--plain-http"];
    for copy in [&second, &renamed] {
        containerd.ctr(&["images", "tag", &first, copy]).ok();
        containerd
            .ctr(&[&push[..], &["--user", &user, copy]].concat())
            .ok();
        tools.crane(&["validate", "--remote", copy]).ok();
        assert_eq!(
            tools.crane(&["digest", &first]).ok(),
            tools.crane(&["digest", copy]).ok()
        );
    }
}

#[test]
fn podman_pushes() {
    let server = crate::server();
    let tools = OciTools::logged_in(&server);
    let layer = tar(tools.folder(), "layer", b"for podman");
    let (first, second) = (image(&server, "podman:1"), image(&server, "podman-copy:1"));
    append(&tools, &layer, &first);
    let podman = Podman::new();
    podman.pull(&first, None).ok();
    let credentials = format!("token:{}", server.token());
    podman.push(&first, &second, None).refused();
    podman.push(&first, &second, Some(&credentials)).ok();
    tools.crane(&["validate", "--remote", &second]).ok();
}

/// As many layers as overlayfs can stack.
#[test]
fn an_image_has_127_layers() {
    let server = crate::server();
    let tools = OciTools::logged_in(&server);
    let layers: Vec<String> = (0..127)
        .map(|index| {
            let content = format!("layer {index}");
            let path = tar(
                tools.folder(),
                &format!("layer-{index}"),
                content.as_bytes(),
            );
            path.to_str().unwrap().to_owned()
        })
        .collect();
    let name = image(&server, "layers:1");
    let mut arguments = vec!["append", "--oci-empty-base", "-t", &name];
    for layer in &layers {
        arguments.extend(["-f", layer]);
    }
    tools.crane(&arguments).ok();
    tools.crane(&["validate", "--remote", &name]).ok();
    let folder = tempfile::tempdir().unwrap();
    let layout = format!("oci:{}:layers", folder.path().display());
    let source = format!("docker://{name}");
    for release in Release::ALL {
        skopeo::copy(release, &["--preserve-digests"], &source, &layout).ok();
    }
}

/// Of content that compresses well, so that the test takes seconds: its size is what matters.
#[test]
fn a_layer_has_3_gigabytes() {
    const LENGTH: u64 = 3 << 30;
    let server = crate::server();
    let tools = OciTools::logged_in(&server);
    let blob = tools.folder().join("blob");
    let mut file = std::fs::File::create(&blob).unwrap();
    file.write_all(&vec![7; 5_000_000]).unwrap();
    file.set_len(LENGTH).unwrap();
    drop(file);
    let name = image(&server, "large:1");
    let plain = "--plain-http";
    tools
        .oras(&["push", plain, &name, "blob:application/x.large"])
        .ok();
    let manifest = tools.oras(&["manifest", "fetch", plain, &name]).ok();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["layers"][0]["size"], LENGTH);
    std::fs::remove_file(&blob).unwrap();
    // oras checks the digest of what it pulls.
    tools.oras(&["pull", plain, &name]).ok();
    assert_eq!(std::fs::metadata(&blob).unwrap().len(), LENGTH);
}

#[test]
fn an_index_of_two_platforms_is_copied_whole() {
    let server = crate::server();
    let tools = OciTools::logged_in(&server);
    let mut platforms = Vec::new();
    for platform in ["amd64", "arm64"] {
        let layer = tar(tools.folder(), platform, platform.as_bytes());
        let name = image(&server, &format!("multi:{platform}"));
        append(&tools, &layer, &name);
        let of = format!("linux/{platform}");
        tools
            .crane(&["mutate", &name, "--set-platform", &of, "-t", &name])
            .ok();
        platforms.push(name);
    }
    let index = image(&server, "multi:1");
    tools
        .crane(&[
            "index",
            "append",
            "-m",
            &platforms[0],
            "-m",
            &platforms[1],
            "-t",
            &index,
        ])
        .ok();
    tools.crane(&["validate", "--remote", &index]).ok();
    let credentials = format!("token:{}", server.token());
    for release in Release::ALL {
        let copy = image(&server, &format!("multi-copy:{release:?}").to_lowercase());
        let mut options = vec!["--all", "--dest-creds", &credentials];
        // skopeo 1.9 rewrites what it does not know in an index.
        if release == Release::Trixie {
            options.push("--preserve-digests");
        }
        let (from, to) = (format!("docker://{index}"), format!("docker://{copy}"));
        skopeo::copy(release, &options, &from, &to).ok();
        if release == Release::Trixie {
            assert_eq!(
                tools.crane(&["digest", &index]).ok(),
                tools.crane(&["digest", &copy]).ok()
            );
        }
        for platform in ["linux/amd64", "linux/arm64"] {
            let config = tools.crane(&["config", "--platform", platform, &copy]).ok();
            assert!(config.contains(&platform[6..]), "{config}");
        }
    }
}

/// `firn image list` and `inspect` show what is shared, whoever pushed it.
#[test]
fn images_are_listed_with_what_they_share() {
    let server = crate::server();
    let tools = OciTools::logged_in(&server);
    let common = tar(tools.folder(), "common", b"common");
    let own = tar(tools.folder(), "own", b"own");
    append(&tools, &common, &image(&server, "base:1"));
    let (base, app) = (image(&server, "base:1"), image(&server, "app:2"));
    let own = own.to_str().unwrap();
    tools
        .crane(&["append", "-b", &base, "-f", own, "-t", &app])
        .ok();
    let user = firn_testkit::rigs::serve::User::admin(&server);
    let listed = user.json(&["image", "list"]);
    let names: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|image| image["name"].clone())
        .collect();
    assert_eq!(names, ["app", "base"]);
    assert_eq!(listed[0]["layers"], 2);
    assert_eq!(listed[1]["own_bytes"], 0);
    assert!(listed[0]["own_bytes"].as_u64().unwrap() > 0);
    assert!(listed[0]["pushed_at"].as_i64().unwrap() > 1_700_000_000);
    let shown = user.json(&["image", "inspect", "app:2"]);
    let others: Vec<_> = (0..2)
        .map(|index| shown["sharing"]["contents"][index]["other_images"].clone())
        .collect();
    assert_eq!(others, [1, 0]);
    let text = user.firn(&["image", "inspect", "app:2"]).ok();
    assert!(text.contains("1 other"), "{text}");
    let text = user.firn(&["image", "list"]).ok();
    assert!(text.contains("app:2") && text.contains("its own"), "{text}");
}
