//! What takes long: the full forms of the tests of reliability, one module a scenario. An ordinary test run
//! leaves this target out; `make soak` runs it, or one scenario by
//! `cargo test --release -p firn-cli --test soak -- SCENARIO --nocapture`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod churn;
mod edges;
mod kill;

use firn_testkit::rigs::serve::Server;
use std::time::Duration;

/// A server of the binary under test, with nothing in it.
fn server() -> Server {
    Server::start(env!("CARGO_BIN_EXE_firn"))
}

/// The binary is there and answers, whatever else is run.
#[test]
fn the_server_under_test_starts() {
    assert_eq!(server().status_of("/readyz"), "200");
}

/// How long a scenario takes: what `name` says in seconds, or its full form.
fn seconds(name: &str, full: u64) -> Duration {
    let given = std::env::var(name).ok();
    Duration::from_secs(given.map_or(full, |text| text.parse().expect("a number of seconds")))
}
