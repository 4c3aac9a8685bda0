//! What foreign bytes may cost, measured on the server's process. The full forms of these are in `tests/soak`.

use firn_testkit::crowd;
use firn_testkit::hostile::{self, Door};
use firn_testkit::large::{self, Content};
use firn_testkit::rigs::program::{command, run};
use firn_testkit::rigs::serve::Server;
use firn_testkit::slow;
use std::time::Duration;

/// Malformed requests to each door.
const REQUESTS: usize = 10_000;
const THREADS: usize = 4;
const MIB: u64 = 1 << 20;

#[test]
fn malformed_requests_are_refused_in_time_and_in_little_memory() {
    let server = crate::server();
    for door in [Door::Nix, Door::Push, Door::Admin] {
        let (address, token) = (server.address(), server.token());
        let reports: Vec<_> = std::thread::scope(|scope| {
            let running: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let token = &token;
                    let seed = 1 + thread as u64;
                    scope
                        .spawn(move || hostile::run(address, token, door, seed, REQUESTS / THREADS))
                })
                .collect();
            running.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let mut refused = 0;
        for report in &reports {
            let faults = &report.faults;
            assert!(
                faults.is_empty(),
                "{door:?}: {} faults, first: {}",
                faults.len(),
                faults[0]
            );
            let of_client = report.statuses.range(400..500).map(|(_, count)| count);
            refused += of_client.sum::<usize>();
        }
        // Most of them are as malformed as they are meant to be, and the door did see them.
        assert!(refused > REQUESTS / 4, "{door:?}: {reports:?}");
        assert_eq!(server.status_of("/readyz"), "200");
    }
    let peak = server.memory_peak() / MIB;
    assert!(peak < 256, "{peak} MiB");
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

/// Ten GB from less than 20 KB: what unpacks to much, packed once more.
#[test]
fn bombs_stop_at_their_cap() {
    let server = crate::server();
    let folder = tempfile::tempdir().unwrap();
    let script = "
        nar() { nix-store --dump tree; }
        mkdir tree; head -c 16777216 /dev/zero > zeros
        # One file that says it has 10 GB, then zeros.
        truncate -s 0 tree/file; nix-store --dump tree > whole
        python3 - <<'E'
import struct
text = lambda t: struct.pack('<Q', len(t)) + t + b'\\0' * (-len(t) % 8)
head = text(b'nix-archive-1') + text(b'(') + text(b'type') + text(b'regular') + text(b'contents')
open('head', 'wb').write(head + struct.pack('<Q', 10 << 30))
E
        for each in 'zst zstd -q -c' 'xz xz -1 -c' 'gz gzip -c' 'bz2 bzip2 -c'; do
            set -- $each; ending=$1; shift
            \"$@\" zeros > one; \"$@\" head > bomb.$ending
            if [ $ending = bz2 ]; then count=60; else count=640; fi
            for i in $(seq $count); do cat one; done >> bomb.$ending
            zstd -q -19 -c bomb.$ending > packed.$ending
        done
        gzip -9 -c bomb.gz > gzipped.gz
        { cat head; head -c 400000000 /dev/zero; } | brotli -q 5 -c > packed.br
        { cat head; head -c 400000000 /dev/zero; } | zstd -q -c > packed.none
        { cat head; head -c 400000000 /dev/zero; } > plain
    ";
    run(command("bash")
        .current_dir(folder.path())
        .args(["-ec", script]))
    .ok();
    let name = "0".repeat(52);
    // What grows beyond 4 GiB is refused there; what ends before it is not what it is named. Neither costs memory.
    for (file, ending, encoding, expected) in [
        ("packed.zst", ".nar.zst", "zstd", "413"),
        ("packed.xz", ".nar.xz", "zstd", "413"),
        ("packed.gz", ".nar.gz", "zstd", "413"),
        ("gzipped.gz", ".nar.gz", "gzip", "413"),
        ("packed.bz2", ".nar.bz2", "zstd", "422"),
        ("packed.none", ".nar", "zstd", "400"),
        ("packed.br", ".nar.br", "identity", "422"),
        ("packed.br", ".nar", "br", "400"),
    ] {
        let length = folder.path().join(file).metadata().unwrap().len();
        assert!(length < 200_000, "{file} has {length} bytes");
        let began = std::time::Instant::now();
        let status = put(
            &server,
            &folder.path().join(file),
            &format!("/main/nar/{name}{ending}"),
            encoding,
        );
        assert_eq!(status, expected, "{file}");
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{file}: {:?}",
            began.elapsed()
        );
    }
    // Small documents have small caps.
    let status = put(
        &server,
        &folder.path().join("packed.none"),
        "/main/log/x.drv",
        "zstd",
    );
    assert_eq!(status, "413");
    let peak = server.memory_peak() / MIB;
    assert!(peak < 256, "{peak} MiB");
}

fn put(server: &Server, file: &std::path::Path, path: &str, encoding: &str) -> String {
    run(command("curl")
        .args([
            "--silent",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
        ])
        .args([
            "--header",
            &format!("Authorization: Bearer {}", server.token()),
        ])
        .args(["--header", &format!("Content-Encoding: {encoding}")])
        .arg("--upload-file")
        .arg(file)
        .arg(format!("{}{path}", server.url())))
    .ok()
}

#[test]
fn slow_clients_hold_up_nobody() {
    let server = crate::server();
    let outcome = slow::run(&server, 500, Duration::from_secs(6));
    eprintln!("{outcome:?}, {} MiB", server.memory_peak() / MIB);
    // Other tests run beside this one: below some milliseconds it measures them.
    let bound = (outcome.base_p99 * 2).max(Duration::from_millis(50));
    assert!(outcome.beside_p99 < bound, "{outcome:?}");
    assert!(outcome.uploads >= 5, "{outcome:?}");
    assert!(outcome.upload_max < Duration::from_secs(10), "{outcome:?}");
    let peak = server.memory_peak() / MIB;
    assert!(peak < 384, "{peak} MiB");
}

/// S7, S8, S9 and S10 at once: a lock that is waited for, bodies of nobody, what costs memory, connections that stay.
#[test]
fn s7_s8_s9_s10_a_hostile_crowd_holds_up_nobody_and_little_memory() {
    let server = crowd::server(env!("CARGO_BIN_EXE_firn"));
    let outcome = crowd::run(&server, 1000, Duration::from_secs(15));
    let peak = server.memory_peak() / MIB;
    eprintln!("{outcome:?}, {peak} MiB");
    assert!(outcome.acts > 500, "{outcome:?}");
    assert!(peak < 512, "{peak} MiB, {outcome:?}");
    // Other tests run beside this one: below some milliseconds it measures them.
    let bound = (outcome.base_p99 * 4).max(Duration::from_millis(50));
    assert!(outcome.beside_p99 < bound, "{outcome:?}");
    let bound = Duration::from_millis(100);
    assert!(outcome.health_p99 < bound, "{outcome:?}");
    assert!(outcome.pushes >= 20, "{outcome:?}");
    assert!(outcome.push_max < Duration::from_secs(5), "{outcome:?}");
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[test]
fn a_large_nar_comes_back_in_little_memory() {
    let server = crate::server();
    let uploaded = large::upload(&server, 1 << 30, Content::Sparse);
    let (size, hash) = large::download(&server, &uploaded.path);
    assert_eq!((size, hash), (uploaded.size, uploaded.hash));
    let peak = server.memory_peak() / MIB;
    assert!(peak < 512, "{peak} MiB");
}

/// Rule 9: an answer that was cut short looks like one, over HTTP/1.1 and 2, of known and unknown length.
#[test]
fn a_kill_in_mid_answer_is_never_a_clean_end() {
    let mut server = crate::server();
    let uploaded = large::upload(&server, 256 << 20, Content::Noise);
    for protocol in ["--http1.1", "--http2-prior-knowledge"] {
        let mut get = std::process::Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--output",
                "/dev/null",
                protocol,
            ])
            .args([
                "--limit-rate",
                "8M",
                "--write-out",
                "%{http_code} %{http_version} %{size_download}",
            ])
            .arg(format!("{}{}", server.url(), uploaded.path))
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        assert!(get.try_wait().unwrap().is_none(), "it is not over yet");
        server.crash();
        let output = get.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success(), "{protocol}: {said}");
        assert!(said.starts_with("200 "), "{protocol}: {said}");
        server.restart();
    }
    assert_eq!(
        large::download(&server, &uploaded.path),
        (uploaded.size, uploaded.hash)
    );
}

/// Two servers on one folder would each believe that it is theirs.
#[test]
fn a_second_server_on_the_same_folder_is_refused() {
    let mut server = crate::server();
    let second = || {
        let data = server.data().display().to_string();
        let binary = env!("CARGO_BIN_EXE_firn");
        let mut timeout = command("timeout");
        run(timeout.args([
            "20",
            binary,
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--data",
            &data,
        ]))
    };
    let refusal = second().refused();
    assert!(
        refusal.contains("error:") && refusal.contains("hint:"),
        "{refusal}"
    );
    assert!(
        refusal.contains("in use") || refusal.contains("another"),
        "{refusal}"
    );
    assert_eq!(server.status_of("/readyz"), "200");
    // The lock goes with the process, however that ends.
    server.crash();
    server.restart();
    assert_eq!(server.status_of("/readyz"), "200");
}
