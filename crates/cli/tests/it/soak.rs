//! The quick forms of what `make soak` does for half an hour.

use firn_testkit::soak::{Plan, Way, seed};
use std::time::Duration;

/// Those who push, each in another way.
const WAYS: [Way; 4] = [Way::Requests, Way::Firn, Way::RequestsAndImages, Way::Nix];

/// Rules 1 to 4: SIGKILL at random moments of pushes at the same time.
#[test]
fn what_was_acknowledged_survives_many_kills() {
    let report = Plan {
        binary: env!("CARGO_BIN_EXE_firn").to_owned(),
        seed: seed(),
        pushers: WAYS.to_vec(),
        pullers: 1,
        batches: 20,
        keep: 0,
        kill_after: Duration::from_millis(100)..Duration::from_millis(900),
        kills: 10,
        time: Duration::from_secs(60),
        collect: false,
        lease_seconds: 60,
    }
    .run();
    assert_eq!(report.kills, 10);
    assert!(report.counted("paths pushed") > 0, "nothing was pushed");
}
