use super::*;
use media_type::{DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, OCI_INDEX, OCI_MANIFEST};
use proptest::prelude::*;

/// As docker pushes one.
const DOCKER: &str = r#"{
   "schemaVersion": 2,
   "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
   "config": {
      "mediaType": "application/vnd.docker.container.image.v1+json",
      "size": 1510,
      "digest": "sha256:b5b2b2c507a0944348e0303114d8d93aaaa081732b86451d9bce1f432a537bc7"
   },
   "layers": [
      {
         "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
         "size": 32654,
         "digest": "sha256:9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0"
      },
      {
         "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
         "size": 7,
         "digest": "sha256:3c3a4604a545cdc127456d94e421cd355bca5b528f4a9c1905b15da2eb4a4c6b",
         "urls": ["https://example.com/layer"]
      }
   ]
}"#;

const ARTIFACT: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"data":"e30="},"layers":[],"subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:5b0bcabd1ed22e9fb1310cf6c2dec7cdef19f0ad69efa1f392e94a4333501270","size":7682},"annotations":{"org.example.key":"value"}}"#;

const INDEX: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:e692418e4cbaf90ca69d05a66403747baa33ee08806650b51fab815ad7fc331f","size":7143,"platform":{"architecture":"ppc64le","os":"linux"}},{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:5b0bcabd1ed22e9fb1310cf6c2dec7cdef19f0ad69efa1f392e94a4333501270","size":7682,"platform":{"architecture":"arm64","os":"linux","variant":"v8"}}]}"#;

fn value(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

fn parse(media_type: &str, document: &serde_json::Value) -> Result<AnyManifest, ManifestError> {
    AnyManifest::parse(media_type, document.to_string().as_bytes())
}

#[test]
fn dockers_manifest_round_trips() {
    let parsed = AnyManifest::parse(DOCKER_MANIFEST, DOCKER.as_bytes()).unwrap();
    let sizes: Vec<_> = parsed.blobs().map(|blob| blob.size).collect();
    assert_eq!(sizes, [1510, 32654], "the foreign layer need not be here");
    assert_eq!(parsed.media_type(), DOCKER_MANIFEST);
    assert_eq!(parsed.artifact_type(), Some(media_type::DOCKER_CONFIG));
    let AnyManifest::Manifest(manifest) = parsed else {
        panic!("not a manifest")
    };
    assert_eq!(serde_json::to_value(&*manifest).unwrap(), value(DOCKER));
}

#[test]
fn an_artifact_round_trips_and_names_its_subject() {
    let parsed = AnyManifest::parse(OCI_MANIFEST, ARTIFACT.as_bytes()).unwrap();
    assert_eq!(parsed.subject().unwrap().size, 7682);
    assert_eq!(parsed.artifact_type(), Some(media_type::OCI_EMPTY));
    assert_eq!(parsed.annotations()["org.example.key"], "value");
    assert_eq!(parsed.config().unwrap().data.as_deref(), Some("e30="));
    let AnyManifest::Manifest(manifest) = parsed else {
        panic!("not a manifest")
    };
    assert_eq!(serde_json::to_value(&*manifest).unwrap(), value(ARTIFACT));

    let mut document = value(ARTIFACT);
    document["artifactType"] = "application/vnd.example.sbom".into();
    let parsed = parse(OCI_MANIFEST, &document).unwrap();
    assert_eq!(parsed.artifact_type(), Some("application/vnd.example.sbom"));
}

#[test]
fn an_index_round_trips_and_lists_its_manifests() {
    let parsed = AnyManifest::parse(
        "application/vnd.oci.image.index.v1+json; charset=utf-8",
        INDEX.as_bytes(),
    )
    .unwrap();
    assert_eq!(parsed.manifests().len(), 2);
    assert_eq!(parsed.blobs().count(), 0);
    assert_eq!((parsed.config(), parsed.artifact_type()), (None, None));
    let AnyManifest::Index(index) = parsed else {
        panic!("not an index")
    };
    assert_eq!(serde_json::to_value(&*index).unwrap(), value(INDEX));
}

#[test]
fn nulls_are_read_as_empty_and_never_written() {
    let mut document = value(ARTIFACT);
    for member in ["layers", "annotations", "artifactType"] {
        document[member] = serde_json::Value::Null;
    }
    document["config"]["urls"] = serde_json::Value::Null;
    let AnyManifest::Manifest(manifest) = parse(OCI_MANIFEST, &document).unwrap() else {
        panic!("not a manifest")
    };
    assert!(manifest.layers.is_empty());
    let json = serde_json::to_string(&*manifest).unwrap();
    assert!(!json.contains("null"), "{json}");
    let mut document = value(INDEX);
    document["manifests"] = serde_json::Value::Null;
    assert_eq!(parse(OCI_INDEX, &document).unwrap().manifests(), []);
}

#[test]
fn unsound_documents_are_refused() {
    let change = |path: &str, to: serde_json::Value| {
        let mut document = value(ARTIFACT);
        *document.pointer_mut(path).unwrap() = to;
        parse(OCI_MANIFEST, &document)
    };
    assert!(change("/schemaVersion", 1.into()).is_err());
    assert!(change("/schemaVersion", "2".into()).is_err());
    assert!(change("/mediaType", DOCKER_MANIFEST.into()).is_err());
    assert!(change("/config", serde_json::Value::Null).is_err());
    assert!(change("/config/digest", "sha256:00".into()).is_err());
    assert!(change("/config/size", (-1).into()).is_err());
    assert!(change("/config/size", u64::MAX.into()).is_err());
    assert!(change("/config/mediaType", "".into()).is_err());
    assert!(change("/layers", serde_json::json!({})).is_err());

    for (media_type, text) in [
        (OCI_INDEX, ARTIFACT),
        (OCI_MANIFEST, INDEX),
        (DOCKER_MANIFEST_LIST, DOCKER),
        ("application/json", ARTIFACT),
        ("", ARTIFACT),
        (OCI_MANIFEST, "{}"),
        (OCI_MANIFEST, "null"),
        (OCI_MANIFEST, ""),
    ] {
        assert!(AnyManifest::parse(media_type, text.as_bytes()).is_err());
    }
    let mut both = value(ARTIFACT);
    both["manifests"] = serde_json::json!([]);
    assert!(parse(OCI_MANIFEST, &both).is_err());
    let mut unnamed = value(DOCKER);
    unnamed.as_object_mut().unwrap().remove("mediaType");
    assert!(parse(DOCKER_MANIFEST, &unnamed).is_err());
    assert!(parse(OCI_MANIFEST, &unnamed).is_ok());
}

#[test]
fn limits_hold() {
    let large = vec![b' '; MANIFEST_BYTES_MAX + 1];
    assert!(matches!(
        AnyManifest::parse(OCI_MANIFEST, &large),
        Err(ManifestError::TooLarge(_))
    ));
    let mut document = value(INDEX);
    let one = document["manifests"][0].clone();
    document["manifests"] = vec![one.clone(); DESCRIPTORS_MAX].into();
    assert!(parse(OCI_INDEX, &document).is_ok());
    document["manifests"] = vec![one; DESCRIPTORS_MAX + 1].into();
    assert!(matches!(
        parse(OCI_INDEX, &document),
        Err(ManifestError::Unsound(_))
    ));
}

proptest! {
    #[test]
    fn truncations_are_errors(length in 0..ARTIFACT.len()) {
        prop_assert!(AnyManifest::parse(OCI_MANIFEST, &ARTIFACT.as_bytes()[..length]).is_err());
    }
}
