//! The binary `firn`: arguments, progress, output, hints.

mod commands;
mod context;
mod failure;
mod hints;
mod output;
mod progress;
mod units;

use clap::Parser as _;
use std::process::ExitCode;

/// Chunk lists and frames are many small and a few large allocations on many threads, and musl's
/// allocator takes a lock for each.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = commands::Cli::parse();
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::FAILURE
        }
    }
}
