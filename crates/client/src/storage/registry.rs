//! A store in an OCI registry. A pack is a blob; a run is a manifest, tagged, whose layers are its segment and
//! its packs; the tag tells the segment's digest, so that reading needs no manifest.
//!
//! ```text
//! tag  firn-<16 hex: microseconds>-<64 hex: SHA-256 of the segment>
//! ```

use crate::{
    error::{ClientError, Result},
    registry::{Deletion, Repository},
};
use firn_formats::{
    Sha256,
    oci::{Descriptor, Digest, Manifest, manifest::DESCRIPTORS_MAX, media_type},
    sha256::Sha256Hasher,
};
use firn_store::{
    StoreError,
    shared::{Backend, PackFile, SegmentTimes, StoredPack},
};
use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    io::{self, Read},
    ops::Range,
    os::unix::fs::FileExt as _,
    sync::Arc,
};

/// What a run's manifest says that it is.
pub const RUN_ARTIFACT_TYPE: &str = "application/vnd.firn.run.v1";
const SEGMENT_MEDIA_TYPE: &str = "application/vnd.firn.segment.v1";
const PACK_MEDIA_TYPE: &str = "application/vnd.firn.pack.v1";
const TAG_PREFIX: &str = "firn-";
/// The segment's name again, so that no two runs have one manifest: it is deleted with all its tags.
const NAME_ANNOTATION: &str = "dev.firn.segment";
/// Largest segment read, in bytes.
const SEGMENT_BYTES_MAX: u64 = 512 << 20;
const EMPTY_CONFIG: &[u8] = b"{}";

/// One repository as a backend.
#[derive(Debug)]
pub struct RegistryBackend {
    repository: Arc<Repository>,
    location: String,
}

impl RegistryBackend {
    /// A store beside the images of a repository. Asks the registry nothing yet.
    pub fn new(repository: Repository, location: &str) -> Result<Self> {
        Ok(Self::sharing(Arc::new(repository), location))
    }

    /// A store in a repository that others use at the same time, with one token for all.
    pub fn sharing(repository: Arc<Repository>, location: &str) -> Self {
        Self {
            repository,
            location: location.to_owned(),
        }
    }

    fn fault(&self, what: impl Into<String>) -> impl FnOnce(ClientError) -> StoreError {
        let what = what.into();
        |source| StoreError::Backend {
            location: self.location.clone(),
            what,
            source: Arc::new(source),
        }
    }

    /// The blob that a pack is.
    fn digest(&self, pack: &str) -> Result<Digest, StoreError> {
        Digest::parse(pack)
            .map_err(ClientError::from)
            .map_err(self.fault(format!("pack {pack}")))
    }

    fn put_run(&self, name: &str, segment: &[u8], packs: &[StoredPack]) -> Result<()> {
        let digest: Digest = Sha256::of(segment).into();
        let config: Digest = Sha256::of(EMPTY_CONFIG).into();
        self.repository.put_blob(&digest, segment)?;
        self.repository.put_blob(&config, EMPTY_CONFIG)?;
        let mut layers = vec![descriptor(SEGMENT_MEDIA_TYPE, digest, segment.len())];
        let mut named = HashSet::new();
        for pack in packs.iter().filter(|pack| named.insert(&pack.name)) {
            let digest = Digest::parse(&pack.name)?;
            layers.push(Descriptor {
                size: pack.length,
                ..descriptor(PACK_MEDIA_TYPE, digest, 0)
            });
        }
        if layers.len() > DESCRIPTORS_MAX {
            return Err(ClientError::Setting(format!(
                "a run cannot hold {} packs: `firn gc --paths-unused-for TIME` forgets what is old, or take another \
                 repository",
                layers.len()
            )));
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: Some(RUN_ARTIFACT_TYPE.to_owned()),
            config: descriptor(media_type::OCI_EMPTY, config, EMPTY_CONFIG.len()),
            layers,
            subject: None,
            annotations: BTreeMap::from([(NAME_ANNOTATION.to_owned(), name.to_owned())]),
        };
        let bytes = serde_json::to_vec(&manifest)
            .map_err(|source| ClientError::json("manifest of a run", source))?;
        self.repository
            .put_manifest(&tag_of(name), media_type::OCI_MANIFEST, &bytes)
    }
}

fn descriptor(media_type: &str, digest: Digest, size: usize) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size: size as u64,
        urls: Vec::new(),
        annotations: BTreeMap::new(),
        artifact_type: None,
        platform: None,
        data: None,
    }
}

/// The tag of a segment.
pub fn tag_of(name: &str) -> String {
    format!("{TAG_PREFIX}{name}")
}

/// The segment's name, if a tag is one of ours.
pub fn name_of(tag: &str) -> Option<&str> {
    let name = tag.strip_prefix(TAG_PREFIX)?;
    let (at, _) = name.split_once('-')?;
    let hex = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
    (at.len() == 16 && at.bytes().all(hex) && segment_digest(name).is_some()).then_some(name)
}

fn segment_digest(name: &str) -> Option<Digest> {
    let (_, hex) = name.split_once('-')?;
    Digest::parse(&format!("sha256:{hex}")).ok()
}

impl Backend for RegistryBackend {
    fn location(&self) -> &str {
        &self.location
    }

    fn segments(&self) -> Result<Vec<String>, StoreError> {
        let tags = self
            .repository
            .tags(&|tag| name_of(tag).is_some())
            .map_err(self.fault("list of tags"))?;
        let mut names: Vec<String> = tags
            .iter()
            .filter_map(|tag| name_of(tag).map(str::to_owned))
            .collect();
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// A registry does not tell when a tag was made.
    fn segment_times(&self) -> Result<SegmentTimes, StoreError> {
        let now = self.repository.time();
        now.map(SegmentTimes::Now).map_err(self.fault("its time"))
    }

    fn segment(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let digest = segment_digest(name)
            .ok_or_else(|| StoreError::Damaged(format!("{name} is no segment's name")))?;
        match self.repository.blob_up_to(&digest, SEGMENT_BYTES_MAX) {
            Err(ClientError::HashMismatch { .. }) => Err(StoreError::Damaged(format!(
                "segment {name} of {} does not have its digest",
                self.location
            ))),
            outcome => outcome.map_err(self.fault(format!("segment {name}"))),
        }
    }

    fn put_pack(&self, file: &File, length: u64) -> Result<StoredPack, StoreError> {
        let digest = digest_of(file, length).map_err(|source| {
            self.fault("a new pack")(ClientError::io(std::env::temp_dir(), source))
        })?;
        let put = || {
            if !self.repository.has_blob(&digest)? {
                let open = || Ok(Box::new(FileReader::new(file, length)) as Box<dyn Read + '_>);
                self.repository.put_blob_stream(&digest, length, &open)?;
            }
            Ok(())
        };
        put().map_err(self.fault(format!("upload of pack {digest}")))?;
        Ok(StoredPack {
            name: digest.to_string(),
            length,
        })
    }

    fn publish(&self, at: u64, segment: &[u8], packs: &[StoredPack]) -> Result<String, StoreError> {
        let name = format!("{at:016x}-{}", Sha256::of(segment).hex());
        self.put_run(&name, segment, packs)
            .map_err(self.fault(format!("publication of segment {name}")))?;
        Ok(name)
    }

    fn read(&self, pack: &str, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let digest = self.digest(pack)?;
        self.repository
            .blob_range(&digest, range)
            .map_err(self.fault(format!("pack {pack}")))
    }

    /// A registry keeps what a manifest names, and drops the rest by itself.
    fn packs(&self) -> Result<Option<Vec<PackFile>>, StoreError> {
        Ok(None)
    }

    fn delete_pack(&self, _name: &str) -> Result<(), StoreError> {
        Err(StoreError::Undeletable(self.location.clone()))
    }

    fn delete_segment(&self, name: &str) -> Result<(), StoreError> {
        let deletion = self
            .repository
            .delete_manifest(&tag_of(name))
            .map_err(self.fault(format!("deletion of segment {name}")))?;
        match deletion {
            Deletion::Gone => Ok(()),
            Deletion::Unsupported => Err(StoreError::Undeletable(self.location.clone())),
        }
    }

    fn requests(&self) -> u64 {
        self.repository.http().requests()
    }
}

/// Reads a file from its beginning whatever others read of it: it has a place of its own.
struct FileReader<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl<'a> FileReader<'a> {
    fn new(file: &'a File, length: u64) -> Self {
        Self {
            file,
            at: 0,
            end: length,
        }
    }
}

impl Read for FileReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        let count = match buffer.get_mut(..length) {
            Some(part) => self.file.read_at(part, self.at)?,
            None => 0,
        };
        self.at += count as u64;
        Ok(count)
    }
}

fn digest_of(file: &File, length: u64) -> io::Result<Digest> {
    let mut reader = FileReader::new(file, length);
    let mut hasher = Sha256Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match reader.read(&mut buffer)? {
            0 => break,
            count => hasher.update(buffer.get(..count).unwrap_or_default()),
        }
    }
    if reader.at != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(hasher.finish().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_tags_are_taken() {
        let name = format!("0005d1a2b3c4d5e6-{}", "0f".repeat(32));
        assert_eq!(name_of(&tag_of(&name)), Some(name.as_str()));
        let digest = segment_digest(&name).map(|digest| digest.to_string());
        assert_eq!(digest, Some(format!("sha256:{}", "0f".repeat(32))));
        let upper = tag_of(&name).to_uppercase();
        let short = tag_of(&name[..70]);
        for other in ["latest", "firn-1", "firn-x-y", &upper, &short, &name] {
            assert_eq!(name_of(other), None, "{other}");
        }
    }

    #[test]
    fn files_are_read_from_their_beginning_and_must_be_whole() {
        use std::io::{Seek as _, Write as _};
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(b"abcdef").expect("write");
        file.seek(io::SeekFrom::Start(3)).expect("seek");
        let digest = digest_of(&file, 6).expect("whole");
        assert!(digest.matches(b"abcdef"));
        assert!(digest_of(&file, 4).expect("a part").matches(b"abcd"));
        assert!(digest_of(&file, 7).is_err());
    }
}
