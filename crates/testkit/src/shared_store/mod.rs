//! What every place of a store without a server must do: one suite, run on each of them.
//!
//! ```ignore
//! fn new_place() -> firn_testkit::shared_store::Place { … }
//! firn_testkit::shared_store_suite!(new_place);
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

mod cases;
mod content;
mod faulty;

pub use cases::*;
pub use content::{Client, content, frames, put, read, value_of};
pub use faulty::{Call, Fault, FaultyBackend};

use firn_store::shared::Backend;
use std::sync::Arc;

/// A new, empty place. Each call gives another client of it, as another machine would have.
pub type Place = Box<dyn Fn() -> Arc<dyn Backend> + Send + Sync>;

/// One test for each case, on the places that the expression (a function of type `fn() -> Place`) makes.
#[macro_export]
macro_rules! shared_store_suite {
    ($new_place:expr) => {
        $crate::shared_store_suite!(@tests $new_place;
            an_empty_place_has_nothing
            packs_are_read_back_by_range
            segments_are_listed_read_and_deleted
            what_one_writes_another_reads
            many_writers_at_once_lose_nothing
            a_run_that_dies_leaves_nothing_visible
            a_fault_at_any_step_is_all_or_nothing
            a_flipped_bit_never_gives_wrong_bytes
            an_empty_reader_needs_few_segments
            the_newest_entry_wins
            collection_keeps_what_is_named
            a_collection_cut_at_any_step_harms_nothing
        );
    };
    (@tests $new_place:expr; $($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                $crate::shared_store::$case(&$new_place());
            }
        )*
    };
}
