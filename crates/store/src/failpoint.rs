//! Named points of the commit protocol at which tests end the process or let a step fail.
//!
//! A point stands *after* the step it is named for. Without the feature `failpoints`, which only tests switch on,
//! reaching one compiles to nothing. With it, `FIRN_FAILPOINT=NAME:abort:N` ends the process when the point is
//! reached for the N-th time, and `NAME:error:N` lets that one step say that it failed.

use crate::StoreError;

macro_rules! points {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A point of the protocol. A test walks over all of them, and fails if one is never reached.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[cfg_attr(not(feature = "failpoints"), allow(unreachable_pub, reason = "tests see it"))]
        pub enum Point {
            $($(#[$doc])* $name,)*
        }

        #[cfg(feature = "failpoints")]
        impl Point {
            /// All of them, in the order of the protocol.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What `FIRN_FAILPOINT` calls it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

points! {
    /// A session's row is there.
    SessionOpened,
    /// What was answered "present" is pinned.
    ChunksPinned,
    /// A pack has its row, and no file yet.
    PackRowMade,
    /// A pack has its file, which is empty.
    PackFileMade,
    /// Frames are written, and not synced.
    FramesAppended,
    /// Frames are durable, and no row says so.
    FramesSynced,
    /// The chunks are valid and pinned.
    ChunksValid,
    /// A trailer is written, and not synced.
    TrailerAppended,
    /// A trailer is durable, and the pack's row does not say so.
    TrailerSynced,
    /// The pack's row says that it is sealed.
    PackSealed,
    /// Blobs were hashed and have their rows, under a lease.
    BlobsMade,
    /// A publication is in the transaction, which is not committed.
    PublicationPrepared,
    /// A publication is committed, and its caller has not heard of it.
    PublicationCommitted,
    /// Leases were put off.
    LeasesRenewed,
    /// The gzip of a blob is remembered.
    GzipRemembered,
    /// A session and its pins are gone.
    SessionClosed,
    /// A part of what is staged is durable, and no row says so.
    PartSynced,
    /// What has ended has lost its files, and not its rows.
    StagedFilesDeleted,
    /// Expired sessions and their pins are gone.
    SessionsReaped,
    /// Operations are in the transaction, which is not committed.
    TransactionFilled,
    /// A transaction is committed, and none of its callers has heard of it.
    TransactionCommitted,
    /// The database is synced for a segment that is not written.
    SegmentBegun,
    /// A file that appears whole is written beside its name, and synced.
    FileWritten,
    /// It has its name, which is not synced.
    FileRenamed,
    /// A segment is durable, and the log holds what it says, too.
    SegmentWritten,
    /// The log holds nothing that a segment says.
    LogTrimmed,
    /// Recovery has deleted the file of an empty pack, and not its row.
    EmptyPackDeleted,
    /// Recovery has cut a pack to its durable length.
    OpenPackCut,
    /// Entries whose lease has ended are gone.
    EntriesExpired,
    /// Blobs that no entry names are gone.
    BlobsDropped,
    /// A collector knows which chunks are live.
    ChunksMarked,
    /// Chunks are condemned: valid no more.
    ChunksCondemned,
    /// Packs that hold nothing are said to be about to go.
    PacksCondemned,
    /// A condemned pack has lost its file, and not its row.
    PackFileDeleted,
    /// A condemned pack is gone.
    PackRowsDeleted,
    /// Frames of a pack that is mostly dead are copied and synced, and rows name the old ones.
    FramesCopied,
    /// Rows name the copies.
    FramesMoved,
    /// A compaction knows what it will cover, and has written nothing.
    CompactionBegun,
    /// The last part of a compaction is durable: it says what is covered.
    CompactionWritten,
    /// A covered segment is gone.
    CoveredDeleted,
    /// A rebuilt database is whole, and beside the old one.
    DatabaseRebuilt,
    /// The old database is out of the way, and the new one not in its place.
    DatabaseMovedAside,
    /// The new database is in its place.
    DatabaseReplaced,
}

/// Does what tests asked for at this point.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
#[allow(clippy::unnecessary_wraps, reason = "with the feature it may fail")]
pub(crate) const fn reach(_: Point) -> Result<(), StoreError> {
    Ok(())
}

#[cfg(feature = "failpoints")]
pub(crate) use switched_on::reach;

#[cfg(feature = "failpoints")]
mod switched_on {
    use super::{Point, StoreError};
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// What the environment asks for, and how often its point was reached.
    struct Plan {
        point: String,
        abort: bool,
        at: u64,
        reached: AtomicU64,
    }

    fn plan() -> Option<&'static Plan> {
        static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
        PLAN.get_or_init(|| read(&std::env::var("FIRN_FAILPOINT").ok()?))
            .as_ref()
    }

    fn read(text: &str) -> Option<Plan> {
        let (point, rest) = text.split_once(':')?;
        let (action, at) = rest.split_once(':')?;
        Some(Plan {
            point: point.to_owned(),
            abort: action == "abort",
            at: at.parse().ok()?,
            reached: AtomicU64::new(0),
        })
    }

    /// Does what tests asked for at this point.
    pub(crate) fn reach(point: Point) -> Result<(), StoreError> {
        let Some(plan) = plan().filter(|plan| plan.point == point.name()) else {
            return Ok(());
        };
        if plan.reached.fetch_add(1, Ordering::SeqCst) + 1 != plan.at {
            return Ok(());
        }
        if plan.abort {
            std::process::abort();
        }
        // Read by the test that runs this process.
        println!("failed at {}", plan.point);
        Err(StoreError::Io {
            path: format!("failpoint {}", plan.point).into(),
            source: std::io::Error::other("on purpose"),
        })
    }
}
