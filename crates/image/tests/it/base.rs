//! Images upon others: layers, config, and what is put into the base's directories.

use crate::support::{HASHES, Store, bytes, run, text};
use firn_formats::oci::{ImageConfig, Manifest, Platform, config::Config};
use firn_image::{
    base::{BaseImage, Chosen, choose},
    compose::{PlanError, PlannedImage, plan_image_in},
    output::{read, write_layout},
    spec::{Accounts, ImageSpec, LayerCompression, RootContent, RootFile, User},
};
use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

fn directory(path: &str, mode: u32) -> RootFile {
    RootFile {
        path: path.to_owned(),
        content: RootContent::Directory,
        mode,
    }
}

/// A base as Debian's: `/bin` is a link, `/tmp` has its mode, the config says something.
fn base_spec(compression: LayerCompression) -> ImageSpec {
    let link = RootFile {
        path: "bin".to_owned(),
        content: RootContent::Symlink("usr/bin".to_owned()),
        mode: 0o777,
    };
    ImageSpec {
        config: Config {
            env: vec!["PATH=/bin".to_owned(), "LANG=C".to_owned()],
            cmd: Some(vec!["sh".to_owned()]),
            user: Some("www".to_owned()),
            labels: BTreeMap::from([("base".to_owned(), "yes".to_owned())]),
            ..Config::default()
        },
        compression,
        root_links: false,
        users: false,
        files: vec![directory("usr/bin", 0o755), directory("share", 0o750), link],
        ..ImageSpec::default()
    }
}

fn write_base(store: &Store, folder: &Path, compression: LayerCompression) {
    let image = store.image(&["libc"], base_spec(compression));
    write_layout(folder, &image, &[]).unwrap();
}

fn amd64() -> Platform {
    ImageSpec::default().platform()
}

fn open(folder: &Path, platform: &Platform) -> BaseImage {
    let source = Arc::new(read(folder).unwrap());
    let top = source.images[0].top().unwrap().clone();
    let chosen = choose("base", &top.media_type, &top.bytes, platform).unwrap();
    let Chosen::Image(manifest) = chosen else {
        panic!("an index")
    };
    let mut config = Vec::new();
    let digest = manifest.config.digest.clone();
    let blob = firn_image::base::BlobSource::open_blob(&*source, &digest);
    std::io::Read::read_to_end(&mut blob.unwrap(), &mut config).unwrap();
    BaseImage::new("base", &manifest, &config, platform, source)
        .and_then(BaseImage::with_tree)
        .unwrap()
}

fn upon(base: BaseImage) -> ImageSpec {
    ImageSpec {
        base: Some(base),
        users: false,
        tmp: false,
        config: Config {
            env: vec!["LANG=D".to_owned(), "APP=1".to_owned()],
            entrypoint: Some(vec!["/app".to_owned()]),
            ..Config::default()
        },
        ..ImageSpec::default()
    }
}

/// Mode and path of each entry of the top layer, and where links lead.
fn root_entries(store: &Store, image: &PlannedImage) -> Vec<String> {
    let file = store.dir().join("root.tar");
    let top = image.layers.len() - 1;
    fs::write(&file, bytes(&image.layer_archive(top).unwrap())).unwrap();
    let listed = run("tar", &["--numeric-owner", "-tvf", text(&file)]);
    let listed = String::from_utf8(listed).unwrap();
    let columns = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        format!("{} {} {}", columns[0], columns[1], columns[5..].join(" "))
    };
    listed.lines().map(columns).collect()
}

#[test]
fn layers_and_config_are_inherited_and_nothing_of_the_base_is_hidden() {
    for compression in [
        LayerCompression::Zstd,
        LayerCompression::Gzip,
        LayerCompression::None,
    ] {
        let store = Store::new();
        let folder = store.dir().join("base");
        write_base(&store, &folder, compression);
        let base = open(&folder, &amd64());
        let below: Vec<_> = base.layers.iter().map(|l| l.descriptor.clone()).collect();
        let image = store.image(&["app"], upon(base));
        let app = format!("/nix/store/{}-app", HASHES[2]);
        assert_eq!(
            root_entries(&store, &image),
            [
                format!("lrwxrwxrwx 0/0 long -> {app}/long"),
                "drwxr-x--- 0/0 share/".to_owned(),
                format!("lrwxrwxrwx 0/0 share/doc -> {app}/share/doc"),
                "drwxr-xr-x 0/0 usr/".to_owned(),
                "drwxr-xr-x 0/0 usr/bin/".to_owned(),
                format!("lrwxrwxrwx 0/0 usr/bin/app -> {app}/bin/app"),
            ]
        );
        let out = store.dir().join("out");
        let written = write_layout(&out, &image, &["app:1".to_owned()]).unwrap();
        let manifest: Manifest = serde_json::from_slice(&written.manifest).unwrap();
        assert_eq!(manifest.layers[..below.len()], below);
        assert_eq!(manifest.layers.len(), below.len() + image.layers.len());
        let config: ImageConfig = serde_json::from_slice(&written.config).unwrap();
        assert_eq!(config.rootfs.diff_ids.len(), manifest.layers.len());
        assert_eq!(config.history.len(), manifest.layers.len());
        assert_eq!(config.config.env, ["PATH=/bin", "LANG=D", "APP=1"]);
        assert_eq!(config.config.cmd, None, "it was another program's");
        assert_eq!(config.config.user.as_deref(), Some("www"));
        assert_eq!(config.config.labels["base"], "yes");
        // skopeo checks every digest.
        let copy = format!("dir:{}", text(&store.dir().join("copy")));
        let from = format!("oci:{}:1", text(&out));
        run(
            "skopeo",
            &["--insecure-policy", "copy", "--quiet", &from, &copy],
        );
    }
}

#[test]
fn homes_and_files_go_where_the_bases_links_lead() {
    let store = Store::new();
    let folder = store.dir().join("base");
    write_base(&store, &folder, LayerCompression::Gzip);
    let spec = ImageSpec {
        root_links: false,
        accounts: Accounts {
            users: vec![User {
                name: "app".to_owned(),
                uid: 7,
                gid: None,
                home: Some("/bin/home".to_owned()),
                shell: None,
                description: String::new(),
            }],
            groups: Vec::new(),
        },
        ..upon(open(&folder, &amd64()))
    };
    let image = store.image(&["app"], spec);
    let entries = root_entries(&store, &image);
    assert!(
        entries.contains(&"drwx------ 7/7 usr/bin/home/".to_owned()),
        "{entries:#?}"
    );
    assert!(
        !entries.iter().any(|entry| entry.ends_with(" bin/")),
        "{entries:#?}"
    );
}

#[test]
fn a_base_counts_against_the_limit_and_has_to_fit() {
    let store = Store::new();
    let folder = store.dir().join("base");
    write_base(&store, &folder, LayerCompression::Gzip);
    let base = open(&folder, &amd64());
    let below = base.layers.len();
    for own in 1..4 {
        let spec = ImageSpec {
            max_layers: below + own,
            ..upon(base.clone())
        };
        let image = store.image(&["app"], spec);
        assert!(image.layers.len() <= own, "{own}");
    }
    let spec = ImageSpec {
        max_layers: below,
        ..upon(base)
    };
    let refused = plan_image_in(store.dir(), store.closure(&["app"]), spec);
    assert!(matches!(refused, Err(PlanError::Base(_))), "{refused:?}");
    let other = Platform {
        architecture: "arm64".to_owned(),
        ..amd64()
    };
    let source = Arc::new(read(&folder).unwrap());
    let top = source.images[0].top().unwrap();
    let Ok(Chosen::Image(manifest)) = choose("base", &top.media_type, &top.bytes, &other) else {
        panic!("no image")
    };
    let config = fs::read(
        folder
            .join("blobs/sha256")
            .join(manifest.config.digest.as_sha256().unwrap().hex()),
    );
    let refused = BaseImage::new("base", &manifest, &config.unwrap(), &other, source);
    let said = refused.unwrap_err().to_string();
    assert_eq!(
        said,
        "the base image base is not for linux/arm64: it is for linux/amd64"
    );
}

#[test]
fn a_base_that_lost_bytes_is_noticed() {
    let store = Store::new();
    let folder = store.dir().join("base");
    write_base(&store, &folder, LayerCompression::None);
    let base = open(&folder, &amd64());
    let hex = base.layers[0].descriptor.digest.as_sha256().unwrap().hex();
    let blob = folder.join("blobs/sha256").join(hex);
    let mut damaged = fs::read(&blob).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&blob, damaged).unwrap();
    let image = store.image(&["app"], upon(base));
    let refused = write_layout(&store.dir().join("out"), &image, &[]).unwrap_err();
    assert!(
        refused.to_string().contains("does not have its digest"),
        "{refused}"
    );
}
