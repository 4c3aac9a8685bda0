//! The cases of the suite.

use super::{Call, Client, Fault, FaultyBackend, Place, put, read};
use crate::noise;
use firn_store::shared::GcOptions;
use firn_store::{EntryKind, StoreError};
use std::collections::BTreeSet;
use std::io::Write as _;
use std::time::Duration;

const KIND: EntryKind = EntryKind::Narinfo;

fn write(client: &Client, keys: &[&str]) -> Result<(), StoreError> {
    let run = client.run("test")?;
    for key in keys {
        put(&run, KIND, key)?;
    }
    run.publish().map(drop)
}

fn assert_has(client: &Client, key: &str) {
    let found = read(client, KIND, key).unwrap_or_else(|error| panic!("{key}: {error:?}"));
    assert!(found.is_some(), "{key} is not there");
}

/// A place where nothing was written can be read.
pub fn an_empty_place_has_nothing(place: &Place) {
    let client = Client::new(place);
    assert_eq!(client.refresh().unwrap().segments_total, 0);
    assert_eq!(place().segments().unwrap(), Vec::<String>::new());
    assert!(client.entry("main", KIND, "a").unwrap().is_none());
    let report = client.run("test").unwrap().publish().unwrap();
    assert_eq!(report.bytes_written, 0);
    assert_eq!(place().segments().unwrap(), Vec::<String>::new());
}

/// Ranges are exact, and what lies beyond the end is an error.
pub fn packs_are_read_back_by_range(place: &Place) {
    let bytes = noise(5, 20 << 20);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    let length = bytes.len() as u64;
    let pack = place().put_pack(&file, length).unwrap();
    assert_eq!(pack.length, length);
    let other = place();
    for range in [0..1, 0..length, 777..4_000_777, length - 1..length] {
        let read = other.read(&pack.name, range.clone()).unwrap();
        assert!(read == bytes[range.start as usize..range.end as usize]);
    }
    assert!(other.read(&pack.name, length - 1..length + 1).is_err());
    assert!(other.read(&pack.name, length + 5..length + 6).is_err());
    if let Some(listed) = other.packs().unwrap() {
        let found = listed.iter().find(|listed| listed.name == pack.name);
        assert_eq!(found.unwrap().length, length);
        assert!((found.unwrap().modified_at - now()).abs() < 3600);
        other.delete_pack(&pack.name).unwrap();
        other.delete_pack(&pack.name).unwrap();
        assert!(other.read(&pack.name, 0..1).is_err());
    }
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_secs() as i64
}

/// Names sort by time; what is deleted is gone, however often.
pub fn segments_are_listed_read_and_deleted(place: &Place) {
    let backend = place();
    let first = backend.publish(0x1234, b"one", &[]).unwrap();
    let second = backend.publish(0x1_0000_0000_1234, b"two", &[]).unwrap();
    assert!(first.starts_with("0000000000001234-"), "{first}");
    assert!(second.starts_with("0001000000001234-"), "{second}");
    let listed: BTreeSet<String> = place().segments().unwrap().into_iter().collect();
    assert_eq!(listed, [first.clone(), second.clone()].into());
    assert_eq!(place().segment(&first).unwrap().unwrap(), b"one");
    match backend.delete_segment(&first) {
        Ok(()) => {
            backend.delete_segment(&first).unwrap();
            assert_eq!(place().segment(&first).unwrap(), None);
            assert_eq!(place().segments().unwrap(), std::slice::from_ref(&second));
        }
        Err(error) => assert!(matches!(error, StoreError::Undeletable(_)), "{error:?}"),
    }
    assert_eq!(place().segment(&second).unwrap().unwrap(), b"two");
}

/// The way of all data.
pub fn what_one_writes_another_reads(place: &Place) {
    let (writer, reader) = (Client::new(place), Client::new(place));
    write(&writer, &["a", "b"]).unwrap();
    assert_has(&writer, "a");
    assert_eq!(reader.refresh().unwrap().segments_new, 1);
    assert_has(&reader, "a");
    assert_has(&reader, "b");
    // What is there is not sent again.
    let run = reader.run("test").unwrap();
    put(&run, KIND, "a").unwrap();
    put(&run, KIND, "c").unwrap();
    let report = run.publish().unwrap();
    assert_eq!((report.frames_new, report.frames_known), (4, 12));
    assert_eq!(writer.refresh().unwrap().segments_new, 1);
    for key in ["a", "b", "c"] {
        assert_has(&writer, key);
    }
}

/// Nobody waits for anybody, and nothing of anybody's is lost.
pub fn many_writers_at_once_lose_nothing(place: &Place) {
    const WRITERS: usize = 5;
    const RUNS: usize = 4;
    let key = |writer, run| format!("writer {writer} run {run}");
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || {
                let client = Client::new(place);
                for run in 0..RUNS {
                    write(&client, &[&key(writer, run)]).unwrap();
                }
            });
        }
    });
    let reader = Client::new(place);
    reader.refresh().unwrap();
    for (writer, run) in (0..WRITERS).flat_map(|writer| (0..RUNS).map(move |run| (writer, run))) {
        assert_has(&reader, &key(writer, run));
    }
    assert_eq!(
        reader.entries("main", KIND, "writer ").unwrap().len(),
        WRITERS * RUNS
    );
}

/// Rule 3: packs alone show nothing.
pub fn a_run_that_dies_leaves_nothing_visible(place: &Place) {
    let writer = Client::new(place);
    write(&writer, &["before"]).unwrap();
    let run = writer.run("dies").unwrap();
    for key in 0..20 {
        put(&run, KIND, &format!("lost {key}")).unwrap();
    }
    drop(run);
    let reader = Client::new(place);
    assert_eq!(reader.refresh().unwrap().segments_total, 1);
    assert_has(&reader, "before");
    assert!(reader.entries("main", KIND, "lost").unwrap().is_empty());
}

/// Whatever call fails or is the last: all of a run is visible, or nothing; and what was there before stays.
pub fn a_fault_at_any_step_is_all_or_nothing(place: &Place) {
    const KEYS: &[&str] = &["first of a run", "second of a run"];
    let mut steps = u64::MAX;
    let mut at = 0;
    while at < steps {
        for fault in [Fault::Fail(at), Fault::Cut(at)] {
            let before = format!("before {fault:?}");
            write(&Client::new(place), &[&before]).unwrap();
            let faulty = FaultyBackend::new(place());
            let writer = Client::on(faulty.clone());
            faulty.set(Some(fault));
            let keys: Vec<String> = KEYS.iter().map(|key| format!("{key} {fault:?}")).collect();
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let written = write(&writer, &keys);
            let made = faulty.calls().len() as u64;
            let reader = Client::new(place);
            reader.refresh().unwrap();
            assert_has(&reader, &before);
            let found: Vec<bool> = keys
                .iter()
                .map(|key| read(&reader, KIND, key).unwrap().is_some())
                .collect();
            assert!(found[0] == found[1], "{fault:?} made half a run visible");
            assert!(found[0] || written.is_err(), "{fault:?} was not noticed");
            if written.is_ok() {
                assert!(made <= at, "{fault:?} did nothing");
                steps = at;
            }
            // Once more, without the fault.
            faulty.set(None);
            write(&writer, &keys).unwrap();
            reader.refresh().unwrap();
            keys.iter().for_each(|key| assert_has(&reader, key));
        }
        at += 1;
    }
    assert!(at > 3, "a run takes more steps than {at}");
}

/// Rule 2: a reader gives what was written or an error, whatever the place says.
pub fn a_flipped_bit_never_gives_wrong_bytes(place: &Place) {
    write(&Client::new(place), &["a"]).unwrap();
    let faulty = FaultyBackend::new(place());
    let healthy = Client::on(faulty.clone());
    healthy.refresh().unwrap();
    assert_has(&healthy, "a");
    let calls = faulty.calls();
    let mut noticed = 0;
    for (step, call) in calls.iter().enumerate() {
        if !matches!(call, Call::Segment | Call::Read) {
            continue;
        }
        for bit in (0..60_000).step_by(997) {
            let reader = Client::on(faulty.clone());
            let step = step as u64;
            faulty.set(Some(Fault::Flip { step, bit }));
            let refreshed = reader.refresh().unwrap();
            // `read` compares all bytes. An error is as good as an answer, and no answer as good as both.
            match read(&reader, KIND, "a") {
                Ok(Some(())) => {}
                Ok(None) => {
                    assert_eq!(refreshed.segments_unreadable, 1);
                    noticed += 1;
                }
                Err(_) => noticed += 1,
            }
        }
    }
    assert!(noticed > 0, "no flipped bit was noticed");
}

/// However many runs there were, a machine that has never seen the place reads at most four segments.
pub fn an_empty_reader_needs_few_segments(place: &Place) {
    let writer = Client::new(place);
    for run in 0..200u64 {
        let writing = writer.run("test").unwrap();
        let key = format!("run {run}");
        match run % 50 {
            0 => put(&writing, KIND, &key).unwrap(),
            _ => writing
                .add_entry("main", KIND, &key, &noise(run, 300), &[])
                .unwrap(),
        }
        writing.publish().unwrap();
    }
    let counting = FaultyBackend::new(place());
    let reader = Client::on(counting.clone());
    let started = std::time::Instant::now();
    let refreshed = reader.refresh().unwrap();
    println!("{refreshed:?} in {:?}", started.elapsed());
    assert!(counting.count(Call::Segment) <= 4, "{:?}", counting.calls());
    assert_eq!(counting.count(Call::Segments), 1);
    assert_eq!(reader.entries("main", KIND, "run ").unwrap().len(), 200);
    assert_has(&reader, "run 150");
}

/// Of one key's entries the newest is seen, and a deletion counts as one.
pub fn the_newest_entry_wins(place: &Place) {
    let (one, other) = (Client::new(place), Client::new(place));
    let set = |client: &Client, value: Option<&[u8]>| {
        client.refresh().unwrap();
        let run = client.run("test").unwrap();
        match value {
            Some(value) => run.add_entry("main", EntryKind::CiKey, "k", value, &[]),
            None => run.delete_entry("main", EntryKind::CiKey, "k"),
        }
        .unwrap();
        run.publish().unwrap();
    };
    let seen = |client: &Client| {
        client.refresh().unwrap();
        let entry = client.entry("main", EntryKind::CiKey, "k").unwrap();
        entry.map(|entry| entry.value)
    };
    for (client, value) in [
        (&one, Some(&b"1"[..])),
        (&other, Some(b"2")),
        (&one, None),
        (&other, Some(b"3")),
        (&other, Some(b"4")),
    ] {
        set(client, value);
        for reader in [&one, &other, &Client::new(place)] {
            assert_eq!(seen(reader).as_deref(), value);
        }
    }
}

/// Whatever is collected, what an entry names stays readable for old and new readers.
pub fn collection_keeps_what_is_named(place: &Place) {
    let (writer, old_reader) = (Client::new(place), Client::new(place));
    write(&writer, &["old"]).unwrap();
    old_reader.refresh().unwrap();
    for run in 0..4 {
        write(&Client::new(place), &[&format!("run {run}")]).unwrap();
    }
    let dying = writer.run("dies").unwrap();
    put(&dying, KIND, "lost").unwrap();
    drop(dying);
    for _ in 0..3 {
        let collector = Client::new(place);
        let options = GcOptions {
            grace: Duration::ZERO,
            ..GcOptions::default()
        };
        match collector.plan_gc(&options).unwrap().execute() {
            Ok(_) => {}
            Err(error) => assert!(matches!(error, StoreError::Undeletable(_)), "{error:?}"),
        }
        assert_has(&old_reader, "old");
        let reader = Client::new(place);
        reader.refresh().unwrap();
        for key in ["old", "run 0", "run 3"] {
            assert_has(&reader, key);
        }
    }
    write(&writer, &["after"]).unwrap();
    old_reader.refresh().unwrap();
    for key in ["old", "run 2", "after"] {
        assert_has(&old_reader, key);
    }
}

/// A collector that dies at any step leaves all that is named readable: while it copies what is left of a pack, names the
/// copies, marks and deletes.
pub fn a_collection_cut_at_any_step_harms_nothing(place: &Place) {
    let options = GcOptions {
        grace: Duration::ZERO,
        ..GcOptions::default()
    };
    // A pack of which most is needed no more.
    let mixed = |key: &str| {
        let writer = Client::with(place(), |options| options.pack_bytes_target = 1 << 20);
        writer.refresh().unwrap();
        let gone = [1, 2, 3].map(|gone| format!("gone {gone} {key}"));
        let run = writer.run("test").unwrap();
        for gone in &gone {
            put(&run, EntryKind::CiKey, gone).unwrap();
        }
        put(&run, KIND, key).unwrap();
        run.publish().unwrap();
        let run = writer.run("test").unwrap();
        for gone in &gone {
            run.delete_entry("main", EntryKind::CiKey, gone).unwrap();
        }
        run.publish().unwrap();
    };
    for run in 0..3 {
        mixed(&format!("before {run}"));
    }
    let mut step = 0;
    loop {
        // What the last one left behind is marked, and deleted by the next.
        let collector = Client::new(place);
        match collector.plan_gc(&options).unwrap().execute() {
            Ok(_) => {}
            Err(error) => assert!(matches!(error, StoreError::Undeletable(_)), "{error:?}"),
        }
        mixed(&format!("step {step}"));
        let dying = Client::new(place);
        let run = dying.run("dies").unwrap();
        put(&run, KIND, &format!("lost {step}")).unwrap();
        drop(run);
        let faulty = FaultyBackend::new(place());
        let collector = Client::on(faulty.clone());
        faulty.set(Some(Fault::Cut(step)));
        let collected = collector.plan_gc(&options).and_then(|plan| plan.execute());
        let made = faulty.calls().len() as u64;
        let reader = Client::new(place);
        reader.refresh().unwrap();
        for before in 0..3 {
            assert_has(&reader, &format!("before {before}"));
        }
        for before in [0, step / 2, step.saturating_sub(1), step] {
            assert_has(&reader, &format!("step {before}"));
        }
        if made <= step {
            let whole = matches!(collected, Ok(_) | Err(StoreError::Undeletable(_)));
            assert!(whole, "{collected:?}");
            break;
        }
        step += 1;
        assert!(step < 100, "a collection comes to no end");
    }
    assert!(step > 2, "a collection takes more steps than {step}");
}
