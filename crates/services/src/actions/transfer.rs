//! How long a job waited for what it found: from the first byte asked for to the last one sent, in however many
//! requests. A look-up and the download that follows it know each other by a number in the signed URL.

use super::{Actions, Repository, history::Restored};
use crate::sync::lock;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Downloads that are followed; of more, those that were looked up first are not.
const FOLLOWED_MAX: usize = 4096;

/// Downloads that are expected, or under way.
pub(super) struct Transfers {
    next: AtomicU64,
    /// By number, so that the oldest is the first.
    open: Mutex<BTreeMap<u64, Transfer>>,
}

struct Transfer {
    repository: Repository,
    began: Option<Instant>,
    bytes_left: u64,
}

impl Transfers {
    pub(super) fn new() -> Self {
        // Numbers of an earlier start are in signed URLs and in the history: none comes again.
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let first = now.map_or(1, |now| u64::try_from(now.as_nanos()).unwrap_or(1));
        Self {
            next: AtomicU64::new(first),
            open: Mutex::default(),
        }
    }

    /// The number of a look-up.
    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

impl Actions {
    /// A download of so many bytes was promised by a look-up.
    pub fn promised(&self, repository: Repository, lookup: u64, bytes: u64) {
        let mut open = lock(&self.transfers.open);
        if open.len() >= FOLLOWED_MAX {
            open.pop_first();
        }
        let transfer = Transfer {
            repository,
            began: None,
            bytes_left: bytes,
        };
        open.insert(lookup, transfer);
    }

    /// Bytes of it are asked for.
    pub fn transfer_begins(&self, lookup: u64) {
        if let Some(transfer) = lock(&self.transfers.open).get_mut(&lookup) {
            transfer.began.get_or_insert_with(Instant::now);
        }
    }

    /// Bytes of it were sent. With the last one it is noted how long that took.
    pub fn transferred(&self, lookup: u64, bytes: u64) {
        let finished = {
            let mut open = lock(&self.transfers.open);
            let Some(transfer) = open.get_mut(&lookup) else {
                return;
            };
            transfer.bytes_left = transfer.bytes_left.saturating_sub(bytes);
            match transfer.bytes_left {
                0 => open.remove(&lookup),
                _ => None,
            }
        };
        let Some(transfer) = finished else { return };
        let took = transfer
            .began
            .map_or(0, |began| began.elapsed().as_millis());
        let restored = Restored {
            restored: lookup,
            milliseconds: u64::try_from(took).unwrap_or(u64::MAX),
        };
        self.notes.note(&transfer.repository, &restored);
    }
}
