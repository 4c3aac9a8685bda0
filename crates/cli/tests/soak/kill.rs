//! The server is killed 200 times while four push.

use firn_testkit::soak::{Plan, Way, seed};
use std::time::Duration;

/// Rules 1 to 4. `SOAK_KILLS=N` for another number.
#[test]
fn kill() {
    let kills = std::env::var("SOAK_KILLS").map_or(200, |text| text.parse().unwrap());
    let report = Plan {
        binary: env!("CARGO_BIN_EXE_firn").to_owned(),
        seed: seed(),
        pushers: vec![
            Way::RequestsAndEntries,
            Way::Firn,
            Way::RequestsAndImages,
            Way::Nix,
        ],
        pullers: 1,
        batches: 20,
        keep: 4,
        kill_after: Duration::from_millis(50)..Duration::from_millis(1500),
        kills,
        time: Duration::from_secs(3600),
        collect: true,
        lease_seconds: 20,
    }
    .run();
    assert_eq!(report.kills, kills);
}
