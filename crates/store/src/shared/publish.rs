//! The one point of visibility.

use super::{Inner, clock, index::Taken, union::Union};
use crate::StoreError;
use firn_chunks::segment::{self, Covers, Preamble};

impl Inner {
    /// Makes a union of records visible as one segment, and takes it into the index. Gives its length.
    pub(super) fn publish(
        &self,
        writer: &str,
        union: Union,
        covers: &[Covers],
    ) -> Result<u64, StoreError> {
        let packs = union.packs();
        let preamble = Preamble {
            writer,
            at: clock::seconds(),
            covers,
            key: self.options.signing_key.as_deref(),
        };
        let bytes = segment::encode_with(&preamble, &union.into_records());
        // Newer by name than all it covers, whatever this machine's clock says.
        let at = clock::micros().max(self.index.newest()?.saturating_add(1));
        // What cannot be read back is not shown to anybody.
        let segment = segment::decode(&bytes)
            .map_err(|error| StoreError::Damaged(format!("the segment just made: {error}")))?;
        let name = self.backend.publish(at, &bytes, &packs)?;
        let length = bytes.len() as u64;
        let signer = self.own_signer();
        self.index.add_own(Taken {
            name,
            bytes,
            segment,
            signer,
        })?;
        Ok(length)
    }
}
