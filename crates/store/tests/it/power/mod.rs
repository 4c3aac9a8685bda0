//! Power cuts (docs/reliability.md, 3): a random workload is recorded, the folder is made anew as a cut at a random
//! moment may have left it, and what was promised by then must be there.
//!
//! A case is a workload, a cut in it and what that loses, each by a number. A failing case prints them, and keeps its
//! folder; `FIRN_POWER=WORKLOAD:CUT:LOST` runs one again, with the same choices but not the same timing.

mod faults;
mod life;
mod verify;

use firn_testkit::power::{Disk, Event, Random};
use life::{Note, Record, folder, live};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Things that a workload does.
const STEPS: usize = 24;
/// Cuts of a workload …
const CUTS: usize = 20;
/// … and what each may lose.
const LOST: usize = 2;
const THREADS: usize = 2;

/// One case at least.
#[derive(Clone, Copy)]
struct Only {
    workload: u64,
    cut: usize,
    lost: u64,
}

fn only() -> Option<Only> {
    let text = std::env::var("FIRN_POWER").ok()?;
    let numbers: Vec<u64> = text.split(':').map(|part| part.parse().unwrap()).collect();
    let [workload, cut, lost] = numbers[..] else {
        panic!("FIRN_POWER=WORKLOAD:CUT:LOST");
    };
    Some(Only {
        workload,
        cut: usize::try_from(cut).unwrap(),
        lost,
    })
}

/// Where cuts are: half of them anywhere, half right after something was said or synced.
fn places(record: &Record, random: &mut Random) -> BTreeSet<usize> {
    let said: Vec<usize> = (0..record.events.len())
        .filter(|at| matches!(record.events[*at], Event::Note(_)))
        .collect();
    let mut places = BTreeSet::from([record.events.len()]);
    while places.len() < CUTS.min(record.events.len()) {
        let place = match random.below(2) {
            0 => random.below(record.events.len()),
            _ => said[random.below(said.len())] + random.below(4),
        };
        places.insert(place.min(record.events.len()));
    }
    places
}

/// What came of some workloads.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    cases: usize,
    broken: usize,
    /// Steps that failed, as was asked for.
    failed: usize,
}

/// The cases of a workload.
fn run(workload: u64, only: Option<Only>) -> Sum {
    let record = live(workload, STEPS);
    let places = places(&record, &mut Random(workload ^ 0x00c0_ffee));
    let mut disk = Disk::new(&record.root);
    let (mut at, mut said) = (0, 0);
    let mut sum = Sum {
        failed: record.failed,
        ..Sum::default()
    };
    for (cut, place) in places.into_iter().enumerate() {
        for event in &record.events[at..place] {
            disk.apply(event);
            if let Event::Note(note) = event {
                said = note + 1;
            }
        }
        at = place;
        for lost in 0..LOST as u64 {
            if only.is_some_and(|only| (only.cut, only.lost) != (cut, lost)) {
                continue;
            }
            let held = case(&disk, &record.notes[..said], workload, cut, lost);
            sum.cases += 1;
            sum.broken += usize::from(!held);
        }
    }
    sum
}

/// Whether all that must hold does; else its panic was reported.
fn case(disk: &Disk, notes: &[Note], workload: u64, cut: usize, lost: u64) -> bool {
    let dir = folder();
    let mut random = Random(workload << 32 ^ (cut as u64) << 16 ^ lost);
    disk.cut(&mut random, dir.path()).unwrap();
    let more = random.below(4) == 0;
    let held = catch_unwind(AssertUnwindSafe(|| verify::verify(dir.path(), notes, more)));
    if held.is_err() {
        println!(
            "FIRN_POWER={workload}:{cut}:{lost} failed; its folder is {}",
            dir.keep().display()
        );
    }
    held.is_ok()
}

/// Runs workloads until there were so many cases.
fn cases(count: usize, first: u64) {
    let begun = Instant::now();
    let (next, sum) = (AtomicU64::new(first), Mutex::new(Sum::default()));
    let one = only();
    let work = || {
        while sum.lock().unwrap().cases < count {
            let workload =
                one.map_or_else(|| next.fetch_add(1, Ordering::SeqCst), |one| one.workload);
            let done = run(workload, one);
            let mut sum = sum.lock().unwrap();
            sum.cases += done.cases;
            sum.broken += done.broken;
            sum.failed += done.failed;
            if one.is_some() {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..if one.is_some() { 1 } else { THREADS } {
            scope.spawn(work);
        }
    });
    let sum = *sum.lock().unwrap();
    println!("{sum:?} in {:.1} s", begun.elapsed().as_secs_f64());
    assert!(sum.cases > 0, "there is no such case");
    assert_eq!(sum.broken, 0, "{sum:?}");
    assert!(one.is_some() || sum.failed > 0, "no step failed: {sum:?}");
}

#[test]
fn what_was_promised_survives_a_power_cut() {
    cases(1000, 1);
}

/// The full form.
#[test]
#[ignore = "takes half an hour: make soak"]
fn what_was_promised_survives_20_000_power_cuts() {
    cases(20_000, 1_000_000);
}
