//! The binary `firn`: arguments, progress, output, hints.

mod commands;
mod context;
mod dest_creds;
mod door;
mod failure;
mod hints;
mod output;
mod progress;
mod storage;
mod units;

use clap::Parser as _;
use std::process::ExitCode;

/// Chunk lists and frames are many small and a few large allocations on many threads, and musl's
/// allocator takes a lock for each.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` in mimalloc.h; the crate has no name for it.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// mimalloc holds freed memory for a second before the system has it back. Uploads free hundreds of megabytes a
/// second: a server's peak under `nix copy` falls from some 170 to 120 MB.
#[allow(unsafe_code)]
fn give_freed_memory_back_at_once() {
    // SAFETY: sets an atomic integer of the allocator; the option exists in every version with `purge`.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, 10) }
}

fn main() -> ExitCode {
    give_freed_memory_back_at_once();
    let cli = commands::Cli::parse();
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::FAILURE
        }
    }
}
