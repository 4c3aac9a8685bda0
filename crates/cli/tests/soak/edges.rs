//! The largest NAR, and clients that are slow for long.

use firn_testkit::large::{self, Content};
use firn_testkit::slow;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

/// 20 GiB there and back, byte for byte, in less than 512 MiB.
#[test]
fn a_nar_of_20_gib() {
    let server = crate::server();
    for content in [Content::Sparse, Content::Noise] {
        let began = Instant::now();
        let uploaded = large::upload(&server, 20 << 30, content);
        let up = began.elapsed();
        let downloaded = large::download(&server, &uploaded.path);
        let peak = server.memory_peak() / MIB;
        println!(
            "{content:?}: up {up:.0?}, down {:.0?}, peak {peak} MiB",
            began.elapsed() - up
        );
        assert_eq!(downloaded, (uploaded.size, uploaded.hash));
        assert!(peak < 512, "{peak} MiB");
    }
}

/// 500 connections with a byte a second, for five minutes.
#[test]
fn slow_clients() {
    let server = crate::server();
    let outcome = slow::run(&server, 500, Duration::from_secs(300));
    println!("{outcome:?}, peak {} MiB", server.memory_peak() / MIB);
    assert!(outcome.beside_p99 < outcome.base_p99 * 2, "{outcome:?}");
    assert!(outcome.upload_max < Duration::from_secs(10), "{outcome:?}");
    assert!(outcome.ended > 0, "nobody slow was ever ended");
}
