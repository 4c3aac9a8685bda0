//! An image that lies in a folder or a tar: its documents and its blobs.

use super::{OutputError, blob_path, tarball::TarIndex};
use crate::base::BlobSource;
use firn_formats::oci::{Descriptor, Digest};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::Arc,
};

/// A manifest or index, byte for byte; its digest was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Document {
    pub media_type: String,
    pub digest: Digest,
    pub bytes: Vec<u8>,
}

/// One image (or index of images) of a source.
#[derive(Debug, Clone, Default)]
pub struct SourceImage {
    /// As the source names it: `name:tag`, or a tag alone.
    pub names: Vec<String>,
    /// In the order in which a registry takes them: the image itself is the last.
    pub documents: Vec<Document>,
    /// Configs and layers, each once.
    pub blobs: Vec<Descriptor>,
}

impl SourceImage {
    /// The document that is the image.
    pub fn top(&self) -> Option<&Document> {
        self.documents.last()
    }
}

/// A folder or file with images.
#[derive(Debug)]
pub struct Source {
    /// The images in it.
    pub images: Vec<SourceImage>,
    pub(super) files: Files,
    /// Blobs that do not lie where a layout keeps them.
    pub(super) elsewhere: HashMap<Digest, Place>,
}

#[derive(Debug, Clone)]
pub(super) enum Place {
    File(String),
    Bytes(Vec<u8>),
}

#[derive(Debug)]
pub(super) enum Files {
    Folder(PathBuf),
    Tar { file: Arc<File>, index: TarIndex },
}

impl Files {
    pub(super) fn open(&self, path: &str) -> Result<BlobReader, OutputError> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(path);
                let file = match File::open(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        return Err(OutputError::Missing(path.display().to_string()));
                    }
                    file => file.map_err(OutputError::io(&path))?,
                };
                let size = file.metadata().map_err(OutputError::io(&path))?.len();
                Ok(BlobReader::range(Arc::new(file), 0, size))
            }
            Self::Tar { file, index } => match index.find(path) {
                Some((offset, size)) => Ok(BlobReader::range(Arc::clone(file), offset, size)),
                None => Err(OutputError::Missing(path.to_owned())),
            },
        }
    }

    pub(super) fn has(&self, path: &str) -> bool {
        match self {
            Self::Folder(folder) => folder.join(path).is_file(),
            Self::Tar { index, .. } => index.find(path).is_some(),
        }
    }

    /// A whole document of at most `limit` bytes.
    pub(super) fn read(&self, path: &str, limit: usize) -> Result<Vec<u8>, OutputError> {
        let mut reader = self.open(path)?;
        if reader.size() > limit as u64 {
            return Err(OutputError::TooLarge {
                name: path.to_owned(),
                limit,
            });
        }
        let mut bytes = Vec::new();
        reader
            .read_to_end(&mut bytes)
            .map_err(OutputError::io(path.as_ref()))?;
        Ok(bytes)
    }
}

impl Source {
    /// The bytes of a blob. They are not checked here; whoever takes them does.
    pub fn open_blob(&self, digest: &Digest) -> Result<BlobReader, OutputError> {
        match self.elsewhere.get(digest) {
            Some(Place::File(path)) => self.files.open(path),
            Some(Place::Bytes(bytes)) => Ok(BlobReader::bytes(bytes.clone())),
            None => self.files.open(&blob_path(digest)),
        }
    }
}

impl BlobSource for Source {
    fn open_blob(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        let reader = Self::open_blob(self, digest).map_err(io::Error::other)?;
        Ok(Box::new(reader))
    }
}

/// Reads a blob; each reader has its own place.
#[derive(Debug)]
pub struct BlobReader {
    content: BlobContent,
    position: u64,
    end: u64,
    size: u64,
}

#[derive(Debug)]
enum BlobContent {
    File(Arc<File>),
    Bytes(Vec<u8>),
}

impl BlobReader {
    fn range(file: Arc<File>, offset: u64, size: u64) -> Self {
        Self {
            content: BlobContent::File(file),
            position: offset,
            end: offset.saturating_add(size),
            size,
        }
    }

    fn bytes(bytes: Vec<u8>) -> Self {
        let size = bytes.len() as u64;
        Self {
            content: BlobContent::Bytes(bytes),
            position: 0,
            end: size,
            size,
        }
    }

    /// Bytes in all.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = self.end.saturating_sub(self.position);
        let wanted = buffer
            .len()
            .min(usize::try_from(rest).unwrap_or(usize::MAX));
        let buffer = &mut buffer[..wanted];
        let count = match &self.content {
            BlobContent::File(file) => file.read_at(buffer, self.position)?,
            BlobContent::Bytes(bytes) => {
                let start = self.position as usize;
                buffer.copy_from_slice(&bytes[start..start + wanted]);
                wanted
            }
        };
        self.position += count as u64;
        Ok(count)
    }
}
