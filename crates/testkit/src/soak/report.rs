//! What a run has found, as a table.

use super::folder::Folder;
use super::ledger::Ledger;
use std::fmt;
use std::sync::Arc;

/// The figures of a run.
pub struct Report {
    /// From the start to the last check.
    pub seconds: u64,
    /// Kills of the server.
    pub kills: u32,
    /// Largest size of the folder that was seen.
    pub largest_bytes: u64,
    /// The folder in the end.
    pub folder: Folder,
    pub(super) ledger: Arc<Ledger>,
}

/// Figures of the ledger that are printed.
const COUNTS: [&str; 10] = [
    "paths pushed",
    "images pushed",
    "Actions entries saved",
    "bytes pushed",
    "caches deleted",
    "collections",
    "reads verified",
    "bytes verified",
    "failed while the server was down",
    "reads broken by a kill or a deletion",
];

impl Report {
    /// Promises that were broken, and what was left over.
    pub fn faults(&self) -> Vec<String> {
        self.ledger.faults()
    }

    /// A figure by its name in the table.
    pub fn counted(&self, name: &str) -> u64 {
        self.ledger.counted(name)
    }

    /// Size of the folder over that of what is live in it: frames, and the database that says where they lie.
    pub fn size_ratio(&self) -> f64 {
        let live = self.folder.live_bytes + self.folder.database_bytes;
        self.folder.bytes as f64 / live.max(1) as f64
    }
}

/// Whether a field of a collection's report says that something was done.
pub(super) fn is_work(name: &str) -> bool {
    // Segments are written and deleted for what the collection itself did.
    !name.starts_with("segments")
        && ["deleted", "condemned", "rewritten", "dropped", "expired"]
            .iter()
            .any(|word| name.contains(word))
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, value: impl fmt::Display) -> fmt::Result {
    writeln!(f, "| {name} | {value} |")
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| | |\n|---|---|")?;
        row(f, "seconds", self.seconds)?;
        row(f, "kills of the server", self.kills)?;
        for name in COUNTS {
            match name.starts_with("bytes") {
                true => row(f, name, megabytes(self.counted(name)))?,
                false => row(f, name, self.counted(name))?,
            }
        }
        let folder = &self.folder;
        row(f, "largest folder seen", megabytes(self.largest_bytes))?;
        row(f, "folder in the end", megabytes(folder.bytes))?;
        row(f, "of it packs", megabytes(folder.pack_bytes))?;
        row(f, "of it segments", megabytes(folder.segment_bytes))?;
        row(f, "of it the database", megabytes(folder.database_bytes))?;
        row(f, "frames of live chunks", megabytes(folder.live_bytes))?;
        row(f, "live chunks", folder.live_chunks)?;
        row(f, "folder over live", format!("{:.3}", self.size_ratio()))?;
        row(f, "promises broken", self.faults().len())
    }
}
