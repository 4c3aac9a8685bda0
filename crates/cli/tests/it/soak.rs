//! The quick forms of what `make soak` does for half an hour.

use firn_testkit::soak::{Plan, Way, seed};
use std::time::Duration;

/// A server, four who push, each in another way, and those who pull.
fn plan() -> Plan {
    Plan {
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
        keep: 2,
        kill_after: Duration::from_millis(100)..Duration::from_millis(900),
        kills: 10,
        time: Duration::from_secs(60),
        collect: true,
        lease_seconds: 8,
    }
}

/// Rules 1 to 4: SIGKILL at random moments of pushes at the same time.
#[test]
fn what_was_acknowledged_survives_many_kills() {
    let report = plan().run();
    assert!(report.kills > 0, "the server was never killed");
    assert!(report.counted("paths pushed") > 0, "nothing was pushed");
}

/// Rules 5 to 7: the collector works while others push, pull and delete.
#[test]
fn nothing_is_lost_and_nothing_is_left_over_when_all_is_done_at_once() {
    let report = Plan {
        pullers: 4,
        batches: 2,
        keep: 1,
        kill_after: Duration::from_secs(6)..Duration::from_secs(7),
        kills: u32::MAX,
        time: Duration::from_secs(20),
        ..plan()
    }
    .run();
    assert!(report.counted("reads verified") > 0, "nothing was read");
    assert!(report.counted("collections") > 0, "nothing was collected");
    let saved = report.counted("Actions entries saved");
    assert!(saved > 0, "nothing was saved in the Actions cache");
}
