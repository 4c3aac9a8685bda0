//! The writer's clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds since 1970; 0 before.
pub(super) fn micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}

/// Seconds since 1970.
pub(super) fn seconds() -> i64 {
    (micros() / 1_000_000) as i64
}
