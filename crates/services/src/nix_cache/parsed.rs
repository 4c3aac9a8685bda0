//! One parser at all doors: a NAR is parsed before its path is signed, by whichever door it came.
//!
//! It is parsed where its bytes pass anyway: as they come in ([`firn_store::Ingest`]) or as the push door hashes them
//! ([`NarParser`]). The blob then remembers it. What came as something else, or before there was this rule, is read
//! once, here.

use super::{NixCache, VerifiedPath};
use crate::ServiceError;
use firn_formats::nix::nar::{NarError, Parser};
use firn_store::{BlobId, BlobInfo, Observer, Representation};
use rayon::prelude::*;
use std::collections::HashMap;

/// Parses a NAR while it is hashed. Holds the parser's state and nothing of the content.
#[derive(Default)]
pub(crate) struct NarParser {
    parser: Parser,
    read: u64,
    fault: Option<NarError>,
}

impl Observer for NarParser {
    fn read(&mut self, raw: &[u8]) {
        self.read += raw.len() as u64;
        if self.fault.is_none() {
            self.fault = self.parser.push(raw, &mut |_| ()).err();
        }
    }
}

impl NarParser {
    /// What a blob of `length` bytes is; `None` if they were not all read.
    pub(crate) fn verdict(&self, length: u64) -> Option<Result<(), NarError>> {
        match &self.fault {
            Some(fault) => Some(Err(fault.clone())),
            None => (self.read == length).then(|| self.parser.finish()),
        }
    }
}

impl NixCache {
    /// Refuses paths whose blobs are no NARs. To be called before anything is signed.
    pub(super) fn check_nars(&self, paths: &[VerifiedPath]) -> Result<(), ServiceError> {
        let unknown: HashMap<BlobId, &VerifiedPath> = paths
            .iter()
            .filter(|path| !path.blob.nar)
            .map(|path| (path.blob.id, path))
            .collect();
        let parsed = unknown
            .into_par_iter()
            .map(|(id, path)| {
                let mut parser = NarParser::default();
                self.observe(&path.blob, &mut parser)?;
                match parser.verdict(path.blob.identity_length) {
                    Some(Ok(())) => Ok(id),
                    Some(Err(fault)) => Err(refused(path, fault)),
                    None => Err(ServiceError::StoredEntry(format!(
                        "the NAR of {}",
                        path.path
                    ))),
                }
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(self.store.mark_nars(parsed)?)
    }

    /// Reads a stored blob to its end.
    pub(super) fn observe(
        &self,
        blob: &BlobInfo,
        observer: &mut dyn Observer,
    ) -> Result<(), ServiceError> {
        let mut reader = self.store.read(blob.id, Representation::Identity, None)?;
        while let Some(block) = reader.next_block()? {
            observer.read(&block);
        }
        Ok(())
    }
}

fn refused(path: &VerifiedPath, source: NarError) -> ServiceError {
    ServiceError::Nar {
        path: path.path.to_string(),
        source,
    }
}
