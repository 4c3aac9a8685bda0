//! A collection of a store of many chunks, in little memory and without holding anybody up.
//!
//! `cargo run --release -p firn-store --example collect_many -- [CHUNKS]` writes rows of CHUNKS (10 million)
//! chunks straight into a database, two thirds of them of blobs that are published, and collects beside a writer
//! that opens and closes sessions. Prints the time, the peak of memory and the longest that the writer waited;
//! fails if that is 1 GB or more, or over 100 ms.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods
)]

use firn_chunks::{ChunkId, ChunkList, ChunkRef};
use firn_store::{CollectionOptions, Options, Store};
use rusqlite::{Connection, params};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const CHUNKS_PER_BLOB: u64 = 500;
const CHUNKS_PER_PACK: u64 = 2000;
const FRAME_BYTES: u64 = 20_000;

fn options(dir: &std::path::Path) -> Options {
    Options {
        dir: dir.to_owned(),
        pack_bytes_target: 64 << 20,
        session_ttl: Duration::from_secs(600),
        lease: Duration::from_secs(3600),
        segment_interval: Duration::from_secs(3600),
        layout_cache_bytes: 16 << 20,
    }
}

fn chunk(number: u64) -> ChunkRef {
    ChunkRef {
        id: ChunkId::of(&number.to_le_bytes()),
        raw_length: 64 << 10,
    }
}

/// Every third blob is not named by any entry.
fn fill(database: &mut Connection, chunks: u64) {
    let transaction = database.transaction().unwrap();
    for pack in 1..=chunks.div_ceil(CHUNKS_PER_PACK) {
        transaction
            .execute(
                "INSERT INTO packs (id, domain, name, durable_length, sealed_length, chunks, raw_bytes, frame_bytes)
                 VALUES (?, 1, ?, ?, ?, ?, 0, ?)",
                params![
                    pack as i64,
                    format!("{pack:032x}"),
                    (24 + CHUNKS_PER_PACK * FRAME_BYTES) as i64,
                    (24 + CHUNKS_PER_PACK * (FRAME_BYTES + 64)) as i64,
                    CHUNKS_PER_PACK as i64,
                    (CHUNKS_PER_PACK * FRAME_BYTES) as i64
                ],
            )
            .unwrap();
    }
    // In the order of their ids, or filling takes longer than anything else.
    let mut order: Vec<([u8; 8], u32)> = (0..chunks)
        .map(|number| {
            let [a, b, c, d, e, f, g, h, ..] = chunk(number).id.0;
            ([a, b, c, d, e, f, g, h], number as u32)
        })
        .collect();
    order.sort_unstable();
    let mut insert = transaction
        .prepare("INSERT INTO chunks VALUES (1, ?, ?, ?, ?, 65536, 1, 0, 0, 1)")
        .unwrap();
    for (_, number) in order {
        let number = u64::from(number);
        let offset = 24 + number % CHUNKS_PER_PACK * FRAME_BYTES;
        insert
            .execute(params![
                chunk(number).id.0,
                (number / CHUNKS_PER_PACK + 1) as i64,
                offset as i64,
                FRAME_BYTES as i64
            ])
            .unwrap();
    }
    drop(insert);
    for blob in 0..chunks / CHUNKS_PER_BLOB {
        let first = blob * CHUNKS_PER_BLOB;
        let list = ChunkList {
            chunks: (first..first + CHUNKS_PER_BLOB).map(chunk).collect(),
        };
        let id = blob as i64 + 1;
        transaction
            .execute(
                "INSERT INTO blobs VALUES (?, 1, ?, 500, ?, 1, ?, 1, NULL, NULL, 0)",
                params![id, list.id().0, list.id().0, list.id().0],
            )
            .unwrap();
        let list = params![id, list.encode()];
        transaction
            .execute("INSERT INTO blob_lists VALUES (?, ?)", list)
            .unwrap();
        if blob % 3 != 0 {
            let key = params![id + 1000, id.to_string()];
            transaction
                .execute("INSERT INTO entries (sequence, cache, kind, key, value) VALUES (?, 1, 1, ?, x'')", key)
                .unwrap();
            transaction
                .execute("INSERT INTO entry_blobs VALUES (?, 0, ?)", [id + 1000, id])
                .unwrap();
        }
    }
    transaction.commit().unwrap();
}

/// The peak of this process's memory, in bytes, since it was last reset.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1024
}

fn main() {
    let chunks: u64 = std::env::args()
        .nth(1)
        .map_or(10_000_000, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path())).unwrap();
    store.cache_create("main", "public", b"").unwrap();
    store.close().unwrap();
    drop(store);
    let began = Instant::now();
    let mut database = Connection::open(dir.path().join("firn.db")).unwrap();
    fill(&mut database, chunks);
    drop(database);
    println!("filled with {chunks} chunks in {:.0?}", began.elapsed());
    // What filling took is not the collector's: 5 resets the peak.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let store = Store::open(options(dir.path())).unwrap();
    let cache = store.cache("main").unwrap().unwrap();
    let stop = AtomicBool::new(false);
    // Rewriting needs bytes, and there are none: as in a store where nothing is mostly dead.
    let collection = CollectionOptions {
        dead_percent: 100,
        ..CollectionOptions::default()
    };
    let (longest, writes) = std::thread::scope(|scope| {
        let (store, stop) = (&store, &stop);
        let pusher = scope.spawn(move || {
            let (mut longest, mut writes) = (Duration::ZERO, 0_u64);
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                let session = store.session_open(&cache).unwrap();
                longest = longest.max(began.elapsed());
                store.session_close(&session.id).unwrap();
                writes += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
            (longest, writes)
        });
        for round in 1..=2 {
            let began = Instant::now();
            let report = store.collect(&collection, &|_| true).unwrap();
            println!("collection {round}: {:.1?}, {report:?}", began.elapsed());
        }
        stop.store(true, Ordering::Relaxed);
        pusher.join().unwrap()
    });
    let peak = peak_memory();
    println!(
        "peak of memory {} MB; longest wait of {writes} writers {longest:.1?}",
        peak / 1_000_000
    );
    assert!(peak < 1_000_000_000, "too much memory");
    assert!(
        longest < Duration::from_millis(100),
        "a writer waited too long"
    );
}
