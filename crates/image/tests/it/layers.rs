//! Layer tars as tar reads them, their keys, and that nothing but the content decides about either.

use crate::support::{HASHES, Store, bytes, run, sha256, text};
use firn_image::{plan::Algorithm, spec::ImageSpec};
use std::fs;

fn listing(store: &Store, tar: &[u8]) -> Vec<String> {
    let file = store.dir().join("layer.tar");
    fs::write(&file, tar).unwrap();
    let arguments = [
        "--utc",
        "--full-time",
        "--numeric-owner",
        "-tvf",
        text(&file),
    ];
    let output = String::from_utf8(run("tar", &arguments)).unwrap();
    output
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

#[test]
fn tar_lists_a_layer_of_store_paths() {
    let store = Store::new();
    let spec = ImageSpec {
        algorithm: Algorithm::Popularity,
        ..ImageSpec::default()
    };
    let image = store.image(&["app"], spec);
    assert_eq!(image.layers[0].paths.len(), 1);
    let at = "1970-01-01 00:00:01";
    let libc = format!("nix/store/{}-libc", HASHES[0]);
    let expected = [
        format!("drwxr-xr-x 0/0 0 {at} nix/"),
        format!("drwxr-xr-x 0/0 0 {at} nix/store/"),
        format!("dr-xr-xr-x 0/0 0 {at} {libc}/"),
        format!("dr-xr-xr-x 0/0 0 {at} {libc}/lib/"),
        format!("-r--r--r-- 0/0 0 {at} {libc}/lib/empty"),
        format!("lrwxrwxrwx 0/0 0 {at} {libc}/lib/libc.so -> libc.so.6"),
        format!("-r-xr-xr-x 0/0 300000 {at} {libc}/lib/libc.so.6"),
        format!("dr-xr-xr-x 0/0 0 {at} {libc}/lib/nothing/"),
        format!("dr-xr-xr-x 0/0 0 {at} {libc}/share/"),
        format!("-r--r--r-- 0/0 5 {at} {libc}/share/notes"),
    ];
    let tar = bytes(&image.layer_archive(0).unwrap());
    assert_eq!(listing(&store, &tar), expected);
}

#[test]
fn tar_unpacks_what_the_store_holds() {
    let store = Store::new();
    let spec = ImageSpec {
        max_layers: 1,
        ..ImageSpec::default()
    };
    let image = store.image(&["app"], spec);
    let file = store.dir().join("layer.tar");
    fs::write(&file, bytes(&image.layer_archive(0).unwrap())).unwrap();
    let to = store.dir().join("unpacked");
    fs::create_dir(&to).unwrap();
    run("tar", &["-xf", text(&file), "-C", text(&to)]);
    for name in ["libc", "tool", "app"] {
        let unpacked = to.join("nix/store").join(store.path(name).to_string());
        run(
            "diff",
            &[
                "-r",
                "--no-dereference",
                text(&store.local(name)),
                text(&unpacked),
            ],
        );
    }
    assert!(to.join("etc/passwd").is_file(), "one layer holds both");
    run("chmod", &["-R", "u+w", text(&to)]);
}

#[test]
fn keys_depend_on_paths_and_hashes_alone() {
    let store = Store::new();
    let before = store.image(&["app"], ImageSpec::default());
    let gzip = ImageSpec {
        compression: firn_image::spec::LayerCompression::Gzip,
        ..ImageSpec::default()
    };
    let keys = |image: &firn_image::compose::PlannedImage| -> Vec<String> {
        image.layers.iter().map(|layer| layer.key.clone()).collect()
    };
    assert_eq!(keys(&store.image(&["app"], gzip)), keys(&before));
    fs::remove_file(store.local("app").join("share/doc/app")).unwrap();
    let after = store.image(&["app"], ImageSpec::default());
    let of = |image: &firn_image::compose::PlannedImage, name: &str| {
        let has = |i: &usize| image.closure.paths[*i].path.name() == name;
        let layer = image
            .layers
            .iter()
            .find(|layer| layer.paths.iter().any(has));
        layer.unwrap().key.clone()
    };
    assert_eq!(of(&before, "libc"), of(&after, "libc"));
    assert_ne!(of(&before, "app"), of(&after, "app"));
    assert!(keys(&after).iter().all(|key| key.len() == 64));
}

#[test]
fn limits_count_the_layer_of_root_files() {
    let store = Store::new();
    for max_layers in 0..6 {
        let spec = ImageSpec {
            max_layers,
            algorithm: Algorithm::Popularity,
            ..ImageSpec::default()
        };
        let image = store.image(&["app"], spec);
        assert_eq!(image.layers.len(), max_layers.clamp(1, 4));
        assert!(image.layers.last().unwrap().root_files);
        let mut paths: Vec<usize> = image.layers.iter().flat_map(|l| l.paths.clone()).collect();
        paths.sort_unstable();
        assert_eq!(paths, [0, 1, 2]);
    }
    let bare = ImageSpec {
        root_links: false,
        users: false,
        tmp: false,
        ..ImageSpec::default()
    };
    assert!(
        store
            .image(&["app"], bare)
            .layers
            .iter()
            .all(|l| !l.root_files)
    );
}

#[test]
fn metadata_of_the_local_files_does_not_show() {
    let (one, two) = (Store::new(), Store::new());
    run(
        "touch",
        &[
            "-d",
            "2001-01-01",
            text(&two.local("libc").join("lib/empty")),
        ],
    );
    run(
        "chmod",
        &["0755", text(&two.local("libc").join("lib/libc.so.6"))],
    );
    for index in 0..2 {
        let tar = |store: &Store| {
            let image = store.image(&["app"], ImageSpec::default());
            sha256(&image.layer_archive(index).unwrap())
        };
        assert_eq!(tar(&one), tar(&two));
    }
}
