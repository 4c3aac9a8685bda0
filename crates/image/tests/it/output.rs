//! Layouts and archives: as skopeo reads them, read back, and the same every time.

use crate::support::{Store, run, text};
use firn_formats::{Sha256, oci::media_type};
use firn_image::{
    compose::{AssembledImage, PlannedImage},
    output::{
        DockerLayout, OutputError, Source, read, write_docker_archive as write_docker,
        write_layout, write_oci_archive,
    },
    spec::{ImageSpec, LayerCompression},
};
use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    path::Path,
};

fn spec(compression: LayerCompression) -> ImageSpec {
    ImageSpec {
        compression,
        ..ImageSpec::default()
    }
}

fn image(store: &Store, compression: LayerCompression) -> PlannedImage {
    store.image(&["app", "tool"], spec(compression))
}

fn names() -> Vec<String> {
    vec!["example.org/app:1.0".to_owned()]
}

fn skopeo(arguments: &[&str]) -> serde_json::Value {
    let output = run("skopeo", &[&["--insecure-policy"], arguments].concat());
    serde_json::from_slice(&output).unwrap_or_default()
}

fn write_docker_archive(
    out: &mut dyn Write,
    image: &PlannedImage,
    names: &[String],
    scratch: &Path,
) -> Result<AssembledImage, OutputError> {
    write_docker(out, image, names, DockerLayout::Oci, scratch)
}

fn write_docker_legacy(
    out: &mut dyn Write,
    image: &PlannedImage,
    names: &[String],
    scratch: &Path,
) -> Result<AssembledImage, OutputError> {
    write_docker(out, image, names, DockerLayout::Legacy, scratch)
}

type Writer =
    fn(&mut dyn Write, &PlannedImage, &[String], &Path) -> Result<AssembledImage, OutputError>;

fn archive(path: &Path, image: &PlannedImage, write: Writer) -> AssembledImage {
    let mut out = fs::File::create(path).unwrap();
    write(&mut out, image, &names(), path.parent().unwrap()).unwrap()
}

/// What skopeo says of an image, the digests of its layers.
fn inspect(reference: &str) -> (String, Vec<String>) {
    let said = skopeo(&["inspect", reference]);
    let layers = said["Layers"].as_array().unwrap();
    let layers = layers
        .iter()
        .map(|layer| layer.as_str().unwrap().to_owned());
    (
        said["Digest"].as_str().unwrap().to_owned(),
        layers.collect(),
    )
}

fn tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let listed = run("find", &[text(folder), "-type", "f", "-printf", "%P\\n"]);
    let listed = String::from_utf8(listed).unwrap();
    listed
        .lines()
        .map(|name| (name.to_owned(), fs::read(folder.join(name)).unwrap()))
        .collect()
}

/// All blobs of all images can be read and are what their descriptors say.
fn check(source: &Source) {
    for image in &source.images {
        assert!(image.blobs.len() >= 2);
        for blob in &image.blobs {
            let mut bytes = Vec::new();
            let mut reader = source.open_blob(&blob.digest).unwrap();
            assert_eq!(reader.size(), blob.size);
            reader.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes.len() as u64, blob.size);
            assert!(blob.digest.matches(&bytes));
        }
    }
}

#[test]
fn skopeo_reads_a_layout() {
    let store = Store::new();
    let folder = store.dir().join("layout");
    for compression in [LayerCompression::Zstd, LayerCompression::Gzip] {
        let image = image(&store, compression);
        let written = write_layout(&folder, &image, &names()).unwrap();
        let (digest, layers) = inspect(&format!("oci:{}:1.0", text(&folder)));
        assert_eq!(digest, format!("sha256:{}", written.manifest_digest.hex()));
        assert_eq!(layers.len(), image.layers.len());
        let from = format!("oci:{}:1.0", text(&folder));
        let to = store.dir().join(format!("{compression:?}"));
        let dir = format!("dir:{}", text(&to));
        skopeo(&["copy", "--dest-decompress", &from, &dir]);
        let config: serde_json::Value = serde_json::from_slice(&written.config).unwrap();
        for diff_id in config["rootfs"]["diff_ids"].as_array().unwrap() {
            let hex = diff_id.as_str().unwrap().trim_start_matches("sha256:");
            let tar = fs::read(to.join(hex)).unwrap();
            assert_eq!(Sha256::of(&tar).hex(), hex);
        }
    }
}

#[test]
fn skopeo_reads_an_oci_archive() {
    let store = Store::new();
    let file = store.dir().join("image.tar");
    let written = archive(
        &file,
        &image(&store, LayerCompression::Zstd),
        write_oci_archive,
    );
    let (digest, _) = inspect(&format!("oci-archive:{}", text(&file)));
    assert_eq!(digest, format!("sha256:{}", written.manifest_digest.hex()));
}

#[test]
fn skopeo_reads_a_docker_archive() {
    let store = Store::new();
    let mut configs = Vec::new();
    for compression in [LayerCompression::Zstd, LayerCompression::Gzip] {
        let file = store.dir().join("image.tar");
        let image = image(&store, compression);
        let written = archive(&file, &image, write_docker_archive);
        let to = store.dir().join(format!("{compression:?}"));
        let from = format!("docker-archive:{}:example.org/app:1.0", text(&file));
        skopeo(&["copy", &from, &format!("dir:{}", text(&to))]);
        let config = fs::read(to.join(written.config_digest.hex())).unwrap();
        assert_eq!(config, written.config);
        // The same file is an OCI layout.
        let (digest, _) = inspect(&format!("oci-archive:{}:1.0", text(&file)));
        assert_eq!(digest, format!("sha256:{}", written.manifest_digest.hex()));
        configs.push(written.config_digest);
    }
    assert_eq!(
        configs[0], configs[1],
        "the image id does not depend on compression"
    );
}

#[test]
fn what_was_written_is_read_back() {
    let store = Store::new();
    let image = image(&store, LayerCompression::Zstd);
    let folder = store.dir().join("layout");
    let layout = write_layout(&folder, &image, &names()).unwrap();
    let (oci, docker) = (store.dir().join("oci.tar"), store.dir().join("docker.tar"));
    let oci_written = archive(&oci, &image, write_oci_archive);
    let docker_written = archive(&docker, &image, write_docker_archive);
    assert_eq!(oci_written.manifest, layout.manifest);
    for (path, written) in [
        (&folder, &layout),
        (&oci, &oci_written),
        (&docker, &docker_written),
    ] {
        let source = read(path).unwrap();
        check(&source);
        let [found] = source.images.as_slice() else {
            panic!("{:?}", source.images)
        };
        assert_eq!(found.names, names());
        assert_eq!(found.top().unwrap().bytes, written.manifest);
        assert_eq!(found.blobs[0].digest, written.config_digest.into());
        assert_eq!(found.blobs.len(), 1 + image.layers.len());
    }
}

#[test]
fn docker_archives_made_elsewhere_are_read() {
    let store = Store::new();
    // Old versions of skopeo convert no zstd.
    let image = image(&store, LayerCompression::Gzip);
    let folder = store.dir().join("layout");
    let written = write_layout(&folder, &image, &names()).unwrap();
    let file = store.dir().join("skopeo.tar");
    let to = format!("docker-archive:{}:example.org/app:1.0", text(&file));
    skopeo(&["copy", &format!("oci:{}:1.0", text(&folder)), &to]);
    let gzipped = run("gzip", &["-1", "-k", "-c", text(&file)]);
    let gz = store.dir().join("skopeo.tar.gz");
    fs::write(&gz, gzipped).unwrap();
    for path in [&file, &gz] {
        let source = read(path).unwrap();
        check(&source);
        let [found] = source.images.as_slice() else {
            panic!("{:?}", source.images)
        };
        assert_eq!(found.names, names());
        let manifest = found.top().unwrap();
        assert_eq!(manifest.media_type, media_type::OCI_MANIFEST);
        let manifest: serde_json::Value = serde_json::from_slice(&manifest.bytes).unwrap();
        let written: serde_json::Value = serde_json::from_slice(&written.config).unwrap();
        let layers = manifest["layers"].as_array().unwrap().iter();
        let digests: Vec<_> = layers.map(|layer| layer["digest"].clone()).collect();
        let plain = serde_json::Value::Array(digests);
        assert_eq!(
            plain, written["rootfs"]["diff_ids"],
            "layers are plain tars"
        );
    }
}

#[test]
fn an_index_is_read_with_all_its_images() {
    let store = Store::new();
    let folder = store.dir().join("layout");
    let one = write_layout(&folder, &image(&store, LayerCompression::Zstd), &names()).unwrap();
    let two = write_layout(&folder, &image(&store, LayerCompression::Gzip), &names()).unwrap();
    let entry = |image: &AssembledImage| {
        serde_json::json!({"mediaType": media_type::OCI_MANIFEST,
            "digest": format!("sha256:{}", image.manifest_digest.hex()), "size": image.manifest.len()})
    };
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX,
        "manifests": [entry(&one), entry(&two)]});
    let index = serde_json::to_vec(&index).unwrap();
    let digest = Sha256::of(&index);
    fs::write(folder.join("blobs/sha256").join(digest.hex()), &index).unwrap();
    let top = serde_json::json!({"schemaVersion": 2, "manifests": [{"mediaType": media_type::OCI_INDEX,
        "digest": format!("sha256:{}", digest.hex()), "size": index.len()}]});
    fs::write(folder.join("index.json"), top.to_string()).unwrap();
    let source = read(&folder).unwrap();
    check(&source);
    let documents: Vec<_> = source.images[0]
        .documents
        .iter()
        .map(|d| &d.bytes)
        .collect();
    assert_eq!(documents, [&one.manifest, &two.manifest, &index]);
}

#[test]
fn threads_folders_and_leftovers_do_not_show() {
    let (a, b) = (Store::new(), Store::new());
    let build = |store: &Store, threads: usize, compression| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| {
            let image = image(store, compression);
            let folder = store.dir().join("layout");
            write_layout(&folder, &image, &names()).unwrap();
            let file = store.dir().join("docker.tar");
            archive(&file, &image, write_docker_archive);
            let mut all = tree(&folder);
            all.insert("docker.tar".to_owned(), fs::read(file).unwrap());
            all
        })
    };
    for compression in [LayerCompression::Zstd, LayerCompression::Gzip] {
        let (one, other) = (build(&a, 1, compression), build(&b, 4, compression));
        assert_eq!(
            one.keys().collect::<Vec<_>>(),
            other.keys().collect::<Vec<_>>()
        );
        assert!(one == other);
        assert!(one.keys().all(|name| !name.contains(".firn-")));
    }
}

#[test]
fn a_docker_manifest_leads_nowhere_else() {
    let store = Store::new();
    fs::write(store.dir().join("secret"), "not yours").unwrap();
    let folder = store.dir().join("image");
    fs::create_dir(&folder).unwrap();
    fs::write(
        folder.join("manifest.json"),
        r#"[{"Config":"../secret","Layers":["../secret"]}]"#,
    )
    .unwrap();
    assert!(matches!(read(&folder), Err(OutputError::NotAnImage(_))));
    let file = store.dir().join("image.tar");
    run(
        "tar",
        &["-C", text(&folder), "-cf", text(&file), "manifest.json"],
    );
    assert!(matches!(read(&file), Err(OutputError::Missing(_))));
}

#[test]
fn what_is_no_image_is_refused() {
    let store = Store::new();
    assert!(matches!(read(store.dir()), Err(OutputError::NotAnImage(_))));
    let text_file = store.dir().join("text");
    fs::write(&text_file, "nothing of the kind\n".repeat(100)).unwrap();
    assert!(matches!(read(&text_file), Err(OutputError::Tar(_))));
    let folder = store.dir().join("layout");
    let written = write_layout(&folder, &image(&store, LayerCompression::Zstd), &[]).unwrap();
    let manifest = folder
        .join("blobs/sha256")
        .join(written.manifest_digest.hex());
    let mut bytes = fs::read(&manifest).unwrap();
    bytes[20] ^= 1;
    fs::write(&manifest, bytes).unwrap();
    assert!(matches!(read(&folder), Err(OutputError::WrongDigest(_))));
    fs::remove_file(&manifest).unwrap();
    assert!(matches!(read(&folder), Err(OutputError::Missing(_))));
}

#[test]
fn the_older_docker_archive_holds_the_same_image() {
    let store = Store::new();
    for compression in [LayerCompression::Zstd, LayerCompression::Gzip] {
        let image = image(&store, compression);
        let file = store.dir().join("legacy.tar");
        let written = archive(&file, &image, write_docker_legacy);
        let listed = String::from_utf8(run("tar", &["-tf", text(&file)])).unwrap();
        assert!(listed.contains("/layer.tar\n"), "{listed}");
        assert!(listed.contains("repositories\n"), "{listed}");
        assert!(!listed.contains("oci-layout"), "{listed}");
        let config = format!("{}.json", written.config_digest.hex());
        assert!(listed.contains(&config), "{listed}");
        let (_, layers) = inspect(&format!("docker-archive:{}", text(&file)));
        assert_eq!(layers.len(), image.layers.len());
        let copy = store.dir().join("copy");
        skopeo(&[
            "copy",
            "--quiet",
            &format!("docker-archive:{}", text(&file)),
            &format!("dir:{}", text(&copy)),
        ]);
        let found = read(&file).unwrap();
        assert_eq!(found.images[0].names, names());
        fs::remove_dir_all(copy).unwrap();
    }
}
