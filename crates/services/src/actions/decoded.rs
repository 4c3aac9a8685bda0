//! Archives that are stored as what is in them, so that a second one that differs in little costs little.
//!
//! A zstd tar of the `@actions/cache` client is decoded, cut as the tar that it is, and served as the blob's zstd
//! representation: another zstd stream of the same tar ([`crate::zstd_tar`]). That client checks no more than the
//! length that the server announces. Everybody else's entries stay byte for byte what they were.

use crate::{ServiceError, zstd_tar};
use firn_store::{BlobInfo, Session, Store};
use std::io::Read;

/// What the client calls itself, with its version; before version 4 of its library without.
const CLIENT: &str = "@actions/cache-";
const OLD_CLIENT: &str = "actions/cache";

/// Whether a client, by its User-Agent, can be given another zstd stream of the same tar. BuildKit's entries look
/// alike and must stay exact.
pub(super) fn may_decode(user_agent: &str) -> bool {
    let first = user_agent.split(' ').next().unwrap_or_default();
    first.starts_with(CLIENT) || first == OLD_CLIENT
}

/// Stores `length` staged bytes as the tar that they hold. `None`: they are no zstd tar, or one that is better kept
/// as it is; the caller then reads them from the beginning and stores them exact. Nothing visible is left behind.
pub(super) fn store(
    store: &Store,
    session: &Session,
    bytes: &mut dyn Read,
    length: u64,
) -> Result<Option<BlobInfo>, ServiceError> {
    match zstd_tar::take_in(store, session, bytes)? {
        Ok(blob) => Ok(Some(blob)),
        Err(why) => {
            tracing::info!(length, %why, "an Actions entry is kept as it came");
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_told_from_those_that_want_their_own_bytes() {
        for client in [
            "@actions/cache-6.3.0",
            "@actions/cache-4.0.0 actions_orchestration_id/x",
            "actions/cache",
        ] {
            assert!(may_decode(client), "{client}");
        }
        for other in [
            "",
            "go-actions-cache/1.0",
            "buildkit/v0.12",
            "opendal/0.53",
            "actions/cache-proxy",
            "github-actions-cache/0.1",
        ] {
            assert!(!may_decode(other), "{other}");
        }
    }
}
