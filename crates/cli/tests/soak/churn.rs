//! Half an hour of pushing, pulling, deleting, collecting and killing at the same time.

use firn_testkit::soak::{Plan, Way, seed};
use std::time::Duration;

/// Largest size of the folder over that of what is live in it, once all is collected.
const SIZE_RATIO_MAX: f64 = 1.05;

/// All rules. `SOAK_SECONDS=N` for another time than half an hour.
#[test]
fn churn() {
    let every = Duration::from_secs(20);
    let report = Plan {
        binary: env!("CARGO_BIN_EXE_firn").to_owned(),
        seed: seed(),
        pushers: vec![
            Way::RequestsAndEntries,
            Way::Firn,
            Way::RequestsAndImages,
            Way::Nix,
        ],
        pullers: 4,
        batches: 8,
        keep: 3,
        kill_after: every..every + Duration::from_millis(500),
        kills: u32::MAX,
        time: crate::seconds("SOAK_SECONDS", 1800),
        collect: true,
        lease_seconds: 20,
    }
    .run();
    assert!(report.counted("caches deleted") > 0, "nothing was deleted");
    assert!(
        report.size_ratio() <= SIZE_RATIO_MAX,
        "{:.3}",
        report.size_ratio()
    );
}
