//! Retention of images: tags, indexes and referrers go with their manifests.

use crate::support::{Fixture, noise};
use firn_formats::Sha256;
use firn_formats::admin::RootPin;
use firn_formats::oci::{Digest, media_type};
use firn_services::registry::{ManifestReference, NewManifest, RegistryError, Repository};
use firn_store::EntryKind;
use std::time::Duration;

struct Images<'a> {
    fixture: &'a Fixture,
    repository: Repository,
}

impl<'a> Images<'a> {
    fn new(fixture: &'a Fixture) -> Self {
        let repository = Repository {
            cache: fixture.cache(),
            name: "app".to_owned(),
        };
        Self {
            fixture,
            repository,
        }
    }

    fn blob(&self, bytes: &[u8]) -> serde_json::Value {
        let digest = Digest::from(Sha256::of(bytes));
        let registry = &self.fixture.services.registry;
        registry
            .upload_whole(&self.repository, &digest, &mut &bytes[..])
            .unwrap();
        serde_json::json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": digest.to_string(),
            "size": bytes.len(),
        })
    }

    fn put(
        &self,
        reference: Option<&str>,
        media_type: &str,
        json: &serde_json::Value,
    ) -> serde_json::Value {
        let bytes = serde_json::to_vec(json).unwrap();
        let digest = Digest::from(Sha256::of(&bytes));
        let reference = match reference {
            Some(tag) => ManifestReference::parse(tag),
            None => ManifestReference::parse(&digest.to_string()),
        };
        let new = NewManifest {
            reference: &reference.unwrap(),
            tags: &[],
            content_type: media_type,
            bytes: &bytes,
            may_move: true,
        };
        self.fixture
            .services
            .registry
            .put_manifest(&self.repository, new)
            .unwrap();
        serde_json::json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    }

    fn manifest(&self, name: &str, layers: &[&str]) -> serde_json::Value {
        serde_json::json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "config": self.blob(format!("{{\"n\":{name:?}}}").as_bytes()),
            "layers": layers.iter().map(|layer| self.blob(&noise(layer, 20_000))).collect::<Vec<_>>(),
        })
    }

    fn image(
        &self,
        tag: Option<&str>,
        layers: &[&str],
        subject: Option<&serde_json::Value>,
    ) -> serde_json::Value {
        let name = format!("{tag:?} {layers:?} {subject:?}");
        let mut manifest = self.manifest(&name, layers);
        if let Some(subject) = subject {
            manifest["subject"] = subject.clone();
        }
        self.put(tag, media_type::OCI_MANIFEST, &manifest)
    }

    fn delete(&self, reference: &str) -> Result<(), RegistryError> {
        let reference = ManifestReference::parse(reference).unwrap();
        let registry = &self.fixture.services.registry;
        registry.delete_manifest(&self.repository, &reference)
    }

    fn delete_blob(&self, digest: &str) -> Result<(), RegistryError> {
        let digest = Digest::parse(digest).unwrap();
        let registry = &self.fixture.services.registry;
        registry.delete_blob(&self.repository.cache, &digest)
    }

    fn pull(&self, reference: &str) -> bool {
        let reference = ManifestReference::parse(reference).unwrap();
        let registry = &self.fixture.services.registry;
        registry.manifest(&self.repository, &reference).is_ok()
    }
}

fn digest(descriptor: &serde_json::Value) -> &str {
    descriptor["digest"].as_str().unwrap()
}

#[test]
fn the_image_pulled_last_stays_and_layers_that_it_shares() {
    let fixture = Fixture::new();
    let images = Images::new(&fixture);
    images.image(Some("old"), &["base", "old"], None);
    images.image(Some("new"), &["base", "new"], None);
    std::thread::sleep(Duration::from_millis(1100));
    assert!(images.pull("new"));
    fixture.configure(None, Some(50_000));
    // Layers that were uploaded lately are still lent to their pushers.
    let evicted = fixture.services.retention.evict(&fixture.cache()).unwrap();
    assert_eq!((evicted.images, evicted.paths), (1, 0));
    assert_eq!(evicted.evicted[0].name, "app:old");
    assert!(images.pull("new") && !images.pull("old"));
    assert_eq!(fixture.keys(EntryKind::Tag), ["app:new"]);
    let why = fixture
        .services
        .retention
        .evictions(&fixture.cache(), 10)
        .unwrap();
    assert_eq!(why[0].kind, EntryKind::Manifest);
}

#[test]
fn an_index_keeps_its_images_and_an_image_what_refers_to_it() {
    let fixture = Fixture::new();
    let images = Images::new(&fixture);
    let amd64 = images.image(None, &["amd64"], None);
    let arm64 = images.image(None, &["arm64"], None);
    let signature = images.image(None, &["signature"], Some(&amd64));
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_INDEX,
        "manifests": [amd64, arm64],
    });
    images.put(Some("1"), media_type::OCI_INDEX, &index);
    let pin = RootPin {
        name: "release".to_owned(),
        image: Some("main/app:1".to_owned()),
        ..RootPin::default()
    };
    let root = fixture
        .services
        .retention
        .pin(&fixture.cache(), &pin)
        .unwrap();
    assert!(
        root.pinned[0]
            .image
            .as_ref()
            .unwrap()
            .starts_with("app@sha256:")
    );
    images.image(Some("other"), &["other"], None);
    fixture.configure(None, Some(1));
    let evicted = fixture.services.retention.evict(&fixture.cache()).unwrap();
    assert_eq!(evicted.images, 1);
    for descriptor in [&amd64, &arm64, &signature] {
        assert!(images.pull(digest(descriptor)));
    }
    fixture
        .services
        .retention
        .unpin(&fixture.cache(), "release")
        .unwrap();
    let evicted = fixture.services.retention.evict(&fixture.cache()).unwrap();
    assert_eq!(evicted.images, 4);
    for kind in [EntryKind::Manifest, EntryKind::Tag, EntryKind::Referrer] {
        assert!(fixture.keys(kind).is_empty(), "{kind:?}");
    }
}

#[test]
fn an_image_pushed_within_the_lease_stays() {
    let fixture = Fixture::with_lease(Duration::from_secs(3600));
    let images = Images::new(&fixture);
    images.image(Some("1"), &["layer"], None);
    fixture.configure(None, Some(1));
    let evicted = fixture.services.retention.evict(&fixture.cache()).unwrap();
    assert_eq!(evicted.images, 0);
    assert!(images.pull("1"));
}

#[test]
fn d6_a_tag_put_beside_the_deletion_of_its_manifest_never_dangles() {
    let fixture = Fixture::new();
    let images = Images::new(&fixture);
    let mut tagged = 0;
    for round in 0..150 {
        let name = format!("image{round}");
        let manifest = images.manifest(&name, &[&name]);
        let image = images.put(None, media_type::OCI_MANIFEST, &manifest);
        let tag = format!("tag{round}");
        let images = &images;
        std::thread::scope(|scope| {
            scope.spawn(|| images.put(Some(&tag), media_type::OCI_MANIFEST, &manifest));
            scope.spawn(|| images.delete(digest(&image)));
        });
        let tags = fixture.keys(EntryKind::Tag);
        if tags.contains(&format!("app:{tag}")) {
            tagged += 1;
            assert!(images.pull(&tag), "{tag} names a manifest that is gone");
        }
    }
    println!("{tagged} of 150 tags stayed");
}

#[test]
fn d6_what_a_manifest_or_an_index_needs_is_not_deleted() {
    let fixture = Fixture::new();
    let images = Images::new(&fixture);
    let child = images.image(None, &["layer"], None);
    let index = images.put(
        Some("all"),
        media_type::OCI_INDEX,
        &serde_json::json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_INDEX,
            "manifests": [child],
        }),
    );
    let refused = |result: Result<(), RegistryError>| {
        let error = result.unwrap_err();
        assert_eq!((error.http_status(), error.code.code()), (405, "DENIED"));
    };
    let layer = images.blob(&noise("layer", 20_000));
    refused(images.delete_blob(digest(&layer)));
    refused(images.delete(digest(&child)));
    assert!(images.pull("all") && images.pull(digest(&child)));
    // From the top down all of it goes.
    images.delete(digest(&index)).unwrap();
    assert_eq!(fixture.keys(EntryKind::Tag), Vec::<String>::new());
    images.delete(digest(&child)).unwrap();
    images.delete_blob(digest(&layer)).unwrap();
    assert!(images.delete_blob(digest(&layer)).is_err());
}
