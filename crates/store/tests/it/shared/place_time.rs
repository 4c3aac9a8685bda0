//! Ages are by the place's time, whatever clocks writers and collectors have.

use super::collection::collect;
use super::{KIND, folder, has, place_in, write};
use firn_store::StoreError;
use firn_store::shared::{Backend, GcOptions, PackFile, SegmentTimes, StoredPack};
use firn_testkit::shared_store::{Client, Place};
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const AHEAD_MICROS: u64 = 400 * 86_400 * 1_000_000;

fn segments(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("segments")).unwrap().count()
}

/// Gives the only segment the name that a writer whose clock is ahead had given it.
fn put_ahead(dir: &Path) {
    let only = std::fs::read_dir(dir.join("segments")).unwrap().next();
    let path = only.unwrap().unwrap().path();
    let name = path.file_name().unwrap().to_str().unwrap();
    let (at, rest) = name.split_once('-').unwrap();
    let at = u64::from_str_radix(at, 16).unwrap() + AHEAD_MICROS;
    std::fs::rename(&path, path.with_file_name(format!("{at:016x}-{rest}"))).unwrap();
}

#[test]
fn d10_a_writer_whose_clock_is_ahead_does_not_stop_deletion() {
    let dir = tempfile::tempdir().unwrap();
    write(&Client::new(&place_in(dir.path())), KIND, "0");
    put_ahead(dir.path());
    let writer = Client::new(&place_in(dir.path()));
    for key in 1..12 {
        write(&writer, KIND, &key.to_string());
    }
    let before = segments(dir.path());
    assert!(before >= 11, "{before}");
    let day = GcOptions::default();
    assert_eq!(collect(dir.path(), &day).segments_deleted, 0, "the grace");
    let at_once = GcOptions {
        grace: Duration::ZERO,
        ..GcOptions::default()
    };
    collect(dir.path(), &at_once);
    collect(dir.path(), &at_once);
    let after = segments(dir.path());
    assert!(after <= 4, "{after} of {before} segments are left");
    let reader = Client::new(&place_in(dir.path()));
    reader.refresh().unwrap();
    for key in 0..12 {
        assert!(has(&reader, &key.to_string()), "{key}");
    }
}

/// As a registry: it tells its time alone, and this machine's clock is ahead of it. Others wrote what is there, by
/// the right time.
#[derive(Debug)]
struct LikeRegistry {
    inner: Arc<dyn Backend>,
    behind: Duration,
}

fn like_registry(dir: &Path, behind: Duration) -> Place {
    let dir = dir.to_owned();
    Box::new(move || {
        let inner = folder(&dir);
        Arc::new(LikeRegistry { inner, behind })
    })
}

impl Backend for LikeRegistry {
    fn location(&self) -> &str {
        self.inner.location()
    }
    fn segments(&self) -> Result<Vec<String>, StoreError> {
        self.inner.segments()
    }
    fn segment_times(&self) -> Result<SegmentTimes, StoreError> {
        let now = SystemTime::now() - self.behind;
        let now = now.duration_since(UNIX_EPOCH).unwrap();
        Ok(SegmentTimes::Now(now.as_secs() as i64))
    }
    fn segment(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.segment(name)
    }
    fn put_pack(&self, file: &File, length: u64) -> Result<StoredPack, StoreError> {
        self.inner.put_pack(file, length)
    }
    fn publish(&self, at: u64, segment: &[u8], packs: &[StoredPack]) -> Result<String, StoreError> {
        let at = at - self.behind.as_micros() as u64;
        self.inner.publish(at, segment, packs)
    }
    fn read(&self, pack: &str, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        self.inner.read(pack, range)
    }
    fn packs(&self) -> Result<Option<Vec<PackFile>>, StoreError> {
        Ok(None)
    }
    fn delete_pack(&self, name: &str) -> Result<(), StoreError> {
        self.inner.delete_pack(name)
    }
    fn delete_segment(&self, name: &str) -> Result<(), StoreError> {
        self.inner.delete_segment(name)
    }
}

fn collected(place: &Place, grace: Duration) -> u64 {
    let options = GcOptions {
        grace,
        ..GcOptions::default()
    };
    let plan = Client::new(place).plan_gc(&options).unwrap();
    plan.execute().unwrap().segments_deleted
}

#[test]
fn d10_a_collector_whose_clock_is_ahead_gives_the_grace() {
    let dir = tempfile::tempdir().unwrap();
    let place = like_registry(dir.path(), Duration::from_secs(86_400));
    let writer = Client::new(&place);
    for key in 0..12 {
        write(&writer, KIND, &key.to_string());
    }
    let hour = Duration::from_secs(3600);
    assert_eq!(collected(&place, hour), 0, "all are of this minute");
    assert!(collected(&place, Duration::ZERO) > 0);
}

#[test]
fn d10_where_only_names_tell_ages_a_name_of_the_future_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let place = like_registry(dir.path(), Duration::ZERO);
    write(&Client::new(&place), KIND, "0");
    put_ahead(dir.path());
    let writer = Client::new(&place);
    for key in 1..12 {
        write(&writer, KIND, &key.to_string());
    }
    assert_eq!(collected(&place, Duration::from_secs(3600)), 0);
    std::thread::sleep(Duration::from_millis(3100));
    assert!(collected(&place, Duration::from_secs(2)) > 0);
    let reader = Client::new(&place);
    reader.refresh().unwrap();
    for key in 0..12 {
        assert!(has(&reader, &key.to_string()), "{key}");
    }
}
