//! What entries mean, for checking and repairing a store that knows no protocol.

use crate::access::CacheConfig;
use crate::document;
use firn_chunks::ChunkId;
use firn_formats::Sha256;
use firn_formats::nix::{Compression, Hash, NarInfo};
use firn_formats::oci::Descriptor;
use firn_formats::oci::manifest::AnyManifest;
use firn_formats::push::LayerDescriptor;
use firn_store::{BlobInfo, CacheRow, Change, DomainId, Entry, EntryKind, Meaning};

/// What an entry says and needs; for [`firn_store::Store::check`].
pub fn explain(cache: &CacheRow, entry: &Entry, blobs: &[BlobInfo]) -> Meaning {
    let mut meaning = match entry.kind {
        EntryKind::Narinfo => narinfo(cache, entry, blobs),
        EntryKind::Manifest => manifest(cache, entry),
        EntryKind::Tag => tag(cache, entry),
        EntryKind::RegistryBlob => registry_blob(entry, blobs),
        EntryKind::NarAlias => {
            let known = std::str::from_utf8(&entry.value)
                .ok()
                .and_then(Compression::from_name);
            fault_if(known.is_none(), "its compression is not known")
        }
        EntryKind::Layer => {
            let parsed = serde_json::from_slice::<LayerDescriptor>(&entry.value);
            fault_if(parsed.is_err(), "its descriptor does not parse")
        }
        EntryKind::Listing
        | EntryKind::Log
        | EntryKind::DebugInfo
        | EntryKind::Realisation
        | EntryKind::BuildTrace => fault_if(
            document::read_value(&entry.value).is_none(),
            "its value does not parse",
        ),
        EntryKind::ActionsEntry => fault_if(
            !crate::actions::is_sound(entry),
            "its key or its value does not parse",
        ),
        _ => Meaning::default(),
    };
    if blobs.len() != entry.blobs.len() {
        meaning
            .faults
            .push("a blob that it names is not here".to_owned());
    }
    meaning
}

/// A chunk in quarantine as the API names it: `DOMAIN-CHUNK`.
pub fn parse_after(text: &str) -> Option<(DomainId, ChunkId)> {
    let (domain, chunk) = text.split_once('-')?;
    let chunk = Sha256::from_hex(chunk)?;
    Some((DomainId(domain.parse().ok()?), ChunkId(chunk.0)))
}

fn fault_if(wrong: bool, fault: &str) -> Meaning {
    Meaning {
        faults: wrong.then(|| fault.to_owned()).into_iter().collect(),
        ..Meaning::default()
    }
}

fn narinfo(cache: &CacheRow, entry: &Entry, blobs: &[BlobInfo]) -> Meaning {
    let Ok(narinfo) = NarInfo::parse(&String::from_utf8_lossy(&entry.value)) else {
        return Meaning {
            name: Some(format!("narinfo {} in {}", entry.key, cache.name)),
            faults: vec!["it does not parse".to_owned()],
            ..Meaning::default()
        };
    };
    let path = &narinfo.store_path;
    let mut meaning = Meaning {
        name: Some(format!("narinfo /nix/store/{path} in {}", cache.name)),
        ..Meaning::default()
    };
    if path.hash().to_string() != entry.key {
        meaning
            .faults
            .push("it is of another path than its key".to_owned());
    }
    match blobs.first() {
        Some(blob)
            if (blob.identity_sha256, blob.identity_length)
                != (narinfo.nar_hash, narinfo.nar_size) =>
        {
            meaning
                .faults
                .push("its NAR is another than it says".to_owned());
        }
        Some(_) => {}
        None => meaning.faults.push("it names no NAR".to_owned()),
    }
    let url = &narinfo.url;
    let stem = url
        .strip_prefix("nar/")
        .and_then(|name| name.split('.').next());
    let nar = (
        EntryKind::NarFile,
        stem.unwrap_or_default().to_owned(),
        format!("its NAR {url}"),
    );
    meaning.requires.push(nar);
    let upstream = serde_json::from_slice::<CacheConfig>(&cache.config)
        .is_ok_and(|config| !config.upstream_keys.is_empty());
    if !upstream {
        let others = narinfo
            .references
            .iter()
            .filter(|reference| reference.hash() != path.hash());
        meaning.requires.extend(others.map(|reference| {
            let key = reference.hash().to_string();
            (
                EntryKind::Narinfo,
                key,
                format!("its reference /nix/store/{reference}"),
            )
        }));
    }
    meaning
}

fn parsed_manifest(entry: &Entry) -> Option<Option<AnyManifest>> {
    let (media_type, content) = document::read_value(&entry.value)?;
    match content {
        Some(content) => AnyManifest::parse(media_type, content).ok().map(Some),
        // A large one lies in a blob, which is checked as such.
        None => Some(None),
    }
}

fn manifest(cache: &CacheRow, entry: &Entry) -> Meaning {
    let mut meaning = Meaning {
        name: Some(format!("manifest {}/{}", cache.name, entry.key)),
        ..Meaning::default()
    };
    let repository = entry.key.split('@').next().unwrap_or_default();
    match parsed_manifest(entry) {
        None => meaning.faults.push("it does not parse".to_owned()),
        Some(None) => {}
        Some(Some(AnyManifest::Manifest(manifest))) => {
            // Layers that stand elsewhere may be absent.
            let blobs = std::iter::once(&manifest.config).chain(&manifest.layers);
            let here = blobs.filter(|descriptor| descriptor.urls.is_empty());
            meaning.requires.extend(here.map(|descriptor| {
                let digest = descriptor.digest.to_string();
                (
                    EntryKind::RegistryBlob,
                    digest.clone(),
                    format!("its blob {digest}"),
                )
            }));
        }
        Some(Some(AnyManifest::Index(index))) => {
            // An index may also list blobs that are no manifests.
            let manifests = index
                .manifests
                .iter()
                .filter(|descriptor| is_manifest(descriptor));
            meaning.requires.extend(manifests.map(|descriptor| {
                let key = format!("{repository}@{}", descriptor.digest);
                (
                    EntryKind::Manifest,
                    key,
                    format!("its manifest {}", descriptor.digest),
                )
            }));
        }
    }
    meaning
}

fn is_manifest(descriptor: &Descriptor) -> bool {
    descriptor.media_type.contains("manifest") || descriptor.media_type.contains("index")
}

fn tag(cache: &CacheRow, entry: &Entry) -> Meaning {
    let digest = String::from_utf8_lossy(&entry.value).into_owned();
    let repository = entry.key.split(':').next().unwrap_or_default();
    let key = format!("{repository}@{digest}");
    Meaning {
        name: Some(format!("image {}/{}", cache.name, entry.key)),
        requires: vec![(
            EntryKind::Manifest,
            key.clone(),
            format!("its manifest {digest}"),
        )],
        follows: Some((EntryKind::Manifest, key)),
        ..Meaning::default()
    }
}

fn registry_blob(entry: &Entry, blobs: &[BlobInfo]) -> Meaning {
    let held = blobs.first().map(|blob| match entry.value.as_ref() {
        b"identity" => Some(blob.identity_sha256),
        b"zstd" => Some(blob.zstd_sha256),
        b"gzip" => blob.gzip.map(|(digest, _)| digest),
        _ => None,
    });
    let wrong = match (held, entry.key.strip_prefix("sha256:")) {
        (Some(Some(held)), Some(named)) => held.hex() != named,
        // Of another algorithm, or gzip that is made when it is asked for.
        (Some(_), _) => false,
        (None, _) => true,
    };
    fault_if(wrong, "its blob has another digest")
}

/// What becomes of an entry whose blob has other frames than before, and so another zstd representation; for
/// [`firn_store::Store::on_remade`]. What names the representation by hash, and is checked by it, goes; what
/// says where a NAR lies follows; old names of NARs stay, since Nix checks only what they unpack to.
pub fn remade(entry: &Entry, before: &BlobInfo, after: &BlobInfo) -> Change {
    match entry.kind {
        EntryKind::Narinfo => remade_narinfo(entry, before, after),
        EntryKind::NarFile if entry.key == before.zstd_sha256.base32() => Change::Beside(
            EntryKind::NarFile,
            after.zstd_sha256.base32(),
            bytes::Bytes::new(),
        ),
        EntryKind::RegistryBlob if entry.value.as_ref() == b"zstd" => Change::Remove,
        EntryKind::Layer => match serde_json::from_slice::<LayerDescriptor>(&entry.value) {
            Ok(layer) if layer.digest != digest(&before.zstd_sha256) => Change::Keep,
            _ => Change::Remove,
        },
        EntryKind::Manifest => match parsed_manifest(entry) {
            Some(Some(AnyManifest::Manifest(manifest))) => {
                let lost = digest(&before.zstd_sha256);
                let mut blobs = std::iter::once(&manifest.config).chain(&manifest.layers);
                match blobs.any(|descriptor| descriptor.digest.to_string() == lost) {
                    true => Change::Remove,
                    false => Change::Keep,
                }
            }
            _ => Change::Keep,
        },
        _ => Change::Keep,
    }
}

fn digest(hash: &Sha256) -> String {
    format!("sha256:{}", hash.hex())
}

/// The signatures are of path, NAR hash, size and references: they stay true.
fn remade_narinfo(entry: &Entry, before: &BlobInfo, after: &BlobInfo) -> Change {
    let Ok(mut narinfo) = NarInfo::parse(&String::from_utf8_lossy(&entry.value)) else {
        return Change::Keep;
    };
    if narinfo.url != format!("nar/{}.nar.zst", before.zstd_sha256.base32()) {
        return Change::Keep;
    }
    narinfo.url = format!("nar/{}.nar.zst", after.zstd_sha256.base32());
    narinfo.file_hash = Hash::parse(&after.zstd_sha256.nix()).ok();
    narinfo.file_size = Some(after.zstd_length);
    Change::Value(narinfo.to_string().into())
}
