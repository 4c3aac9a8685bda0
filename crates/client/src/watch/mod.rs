//! Sending new paths while a job goes on.
//!
//! Two things put paths into a queue on disk: a look at the Nix database every so often, and a hook that Nix
//! calls after each build. One thing takes them out: closures are pushed in batches, each published by
//! itself. A path leaves the queue when it is published, so that a crash loses nothing.

mod filter;
mod queue;
mod run;

pub use filter::Filter;
pub use queue::{Queue, Queued};
pub use run::{Watch, WatchReport};
