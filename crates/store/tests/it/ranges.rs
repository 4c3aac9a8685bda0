//! Ranges against the whole, and the gzip.

use crate::support::{Fixture, mixed, read_all};
use firn_formats::Sha256;
use firn_store::{BlobInfo, Representation, StoreError};
use proptest::prelude::*;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

struct Shared {
    fixture: Fixture,
    blob: BlobInfo,
    content: Vec<u8>,
    zstd: Vec<u8>,
    gzip: Vec<u8>,
}

fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| {
        let fixture = Fixture::new();
        // The second half repeats the first: frames far apart in the pack follow each other.
        let half = mixed(11, 2_000_000);
        let content = [&half[..], &half[700_000..], &half[..900_000]].concat();
        let blob = fixture.ingest(&content).unwrap();
        let read =
            |representation| read_all(&fixture.store, blob.id, representation, None).unwrap();
        let (zstd, gzip) = (read(Representation::Zstd), read(Representation::Gzip));
        Shared {
            fixture,
            blob,
            content,
            zstd,
            gzip,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_range_is_what_the_whole_has_there(start in 0u64..4_500_000, length in 0u64..1_500_000) {
        let shared = shared();
        for (representation, whole) in [
            (Representation::Identity, &shared.content),
            (Representation::Zstd, &shared.zstd),
        ] {
            let range = Some((start, length));
            let read = read_all(&shared.fixture.store, shared.blob.id, representation, range);
            let start = whole.len().min(start as usize);
            let end = whole.len().min(start + length as usize);
            prop_assert!(read.unwrap() == whole[start..end]);
        }
    }
}

#[test]
fn ranges_at_the_edges() {
    let shared = shared();
    let length = shared.content.len() as u64;
    for (start, count, expected) in [
        (0, 0, 0),
        (0, 1, 1),
        (length - 1, 5, 1),
        (length, 1, 0),
        (length + 9, u64::MAX - length - 20, 0),
        (0, length, length),
    ] {
        let read = read_all(
            &shared.fixture.store,
            shared.blob.id,
            Representation::Identity,
            Some((start, count)),
        );
        assert_eq!(read.unwrap().len() as u64, expected, "{start}+{count}");
    }
    let range = Some((100_000, 50_000));
    let read = read_all(
        &shared.fixture.store,
        shared.blob.id,
        Representation::Gzip,
        range,
    );
    assert!(read.unwrap() == shared.gzip[100_000..150_000]);
}

#[test]
fn representations_have_the_digests_that_the_blob_says() {
    let shared = shared();
    assert_eq!(Sha256::of(&shared.content), shared.blob.identity_sha256);
    assert_eq!(Sha256::of(&shared.zstd), shared.blob.zstd_sha256);
    let known = shared.fixture.store.blob(shared.blob.id).unwrap().unwrap();
    let gzip = (Sha256::of(&shared.gzip), shared.gzip.len() as u64);
    assert_eq!(known.gzip, Some(gzip));
    let found = shared.fixture.store.blob_by_digest(known.domain, &gzip.0);
    assert_eq!(found.unwrap(), Some((known, Representation::Gzip)));
    let unknown = shared
        .fixture
        .store
        .blob_by_digest(shared.blob.domain, &Sha256([7; 32]));
    assert_eq!(unknown.unwrap(), None);
}

fn filter(program: &str, input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || stdin.write_all(&input).unwrap());
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    assert!(output.status.success());
    output.stdout
}

#[test]
fn gzip_is_deterministic_and_gzip_decodes_it() {
    let shared = shared();
    assert!(filter("gzip", &shared.gzip) == shared.content);
    // The same content in another store, with other blocks read: the same bytes.
    let other = Fixture::new();
    other.ingest(&shared.content[..1_234_567]).unwrap();
    let blob = other.ingest(&shared.content).unwrap();
    let made = other.store.make_gzip(blob.id).unwrap();
    assert_eq!(made, (Sha256::of(&shared.gzip), shared.gzip.len() as u64));
}

#[test]
fn what_is_hot_is_read_without_waiting() {
    let shared = shared();
    for representation in [Representation::Zstd, Representation::Identity] {
        let mut reader = shared
            .fixture
            .store
            .read(shared.blob.id, representation, None)
            .unwrap();
        let mut length = 0;
        while let Some(block) = reader
            .try_next_block()
            .unwrap()
            .or_else(|_| reader.next_block())
            .unwrap()
        {
            length += block.len();
        }
        let whole = match representation {
            Representation::Zstd => shared.zstd.len(),
            _ => shared.content.len(),
        };
        assert_eq!(length, whole);
    }
}

#[test]
fn an_empty_blob_has_representations_too() {
    let fixture = Fixture::new();
    let blob = fixture.ingest(b"").unwrap();
    assert_eq!(blob.identity_sha256, Sha256::of(b""));
    let read = |representation| read_all(&fixture.store, blob.id, representation, None);
    assert_eq!(read(Representation::Identity).unwrap(), b"");
    assert_eq!(read(Representation::Zstd).unwrap(), b"");
    let gzip = read(Representation::Gzip).unwrap();
    assert_eq!(filter("gzip", &gzip), b"");
    let unknown = read_all(
        &fixture.store,
        firn_store::BlobId(99),
        Representation::Zstd,
        None,
    );
    assert!(matches!(unknown, Err(StoreError::Damaged(_))));
}

#[test]
fn reading_hot_frames_costs_little() {
    let fixture = Fixture::new();
    let content = crate::support::noise(12, 100_000_000);
    let blob = fixture.ingest(&content).unwrap();
    for _ in 0..3 {
        let start = std::time::Instant::now();
        let mut reader = fixture
            .store
            .read(blob.id, Representation::Zstd, None)
            .unwrap();
        let mut length = 0;
        while let Ok(Some(block)) = reader.try_next_block().unwrap() {
            length += block.len();
        }
        let rate = length as f64 / start.elapsed().as_secs_f64() / 1e9;
        eprintln!("hot frames: {rate:.2} GB/s");
        assert_eq!(length as u64, blob.zstd_length);
        // A floor for a debug build on a busy machine; the benches hold the real one.
        assert!(rate > 0.05);
    }
}
