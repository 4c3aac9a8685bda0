//! Many who push and pull at once, a server that is killed again and again, and a collector without delay.
//!
//! What the server acknowledges is written into a ledger, and taken out of it before its deletion is asked for.
//! Whatever stands there must be readable, byte for byte, at any time at which the server runs; an answer that is
//! complete and wrong is a fault at all times. What fails is excused only by a kill in between.
#![allow(
    clippy::panic,
    clippy::expect_used,
    reason = "what cannot be set up fails its test"
)]

mod entry;
mod folder;
mod http;
mod ledger;
mod pull;
mod push;
mod report;
mod sample;

pub use folder::Folder;
pub use http::{Answer, Client};
pub use push::Way;
pub use report::Report;
pub use sample::{Random, Sample, Seed};

use crate::rigs::serve::Server;
use entry::Jobs;
use ledger::Ledger;
use pull::{Puller, judge, read_item};
use push::Pusher;
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most faults until a run ends: the first ones tell the cause.
const FAULTS_MAX: usize = 10;
/// Packs of which more is dead are rewritten, while there is load …
const DEAD_PERCENT: u8 = 30;
/// … and in the end, so that the folder comes down to what is live.
const DEAD_PERCENT_LAST: u8 = 2;
/// Rounds of collection until nothing may be left.
const COLLECTIONS_MAX: u32 = 20;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a run does.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The binary under test.
    pub binary: String,
    /// Makes content and choices; printed, so that a run can be repeated.
    pub seed: u64,
    /// How each who pushes does it.
    pub pushers: Vec<Way>,
    /// How many pull.
    pub pullers: usize,
    /// Batches in a generation of a pusher.
    pub batches: u64,
    /// Generations kept by each; nothing is deleted if zero.
    pub keep: u64,
    /// Between a start of the server and the next kill.
    pub kill_after: Range<Duration>,
    /// The run ends after so many kills, …
    pub kills: u32,
    /// … and after this time.
    pub time: Duration,
    /// Collects all the time.
    pub collect: bool,
    /// Life of a session without a request, and of a blob without an entry, in seconds.
    pub lease_seconds: u64,
}

/// A seed that was asked for by `SOAK_SEED`, or a new one.
pub fn seed() -> u64 {
    let given = std::env::var("SOAK_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| now.as_nanos() as u64)
    })
}

struct Run<'a> {
    plan: &'a Plan,
    server: Server,
    ledger: Arc<Ledger>,
    client: Client,
    jobs: Jobs,
    kills: u32,
    largest_bytes: u64,
}

impl Plan {
    /// Runs it and gives its figures.
    ///
    /// # Panics
    /// If a promise was broken, or something is left over.
    pub fn run(&self) -> Report {
        println!("seed {}", self.seed);
        let began = Instant::now();
        let mut config = serde_json::json!({
            "pack_bytes_target": 4 << 20,
            "session_ttl_seconds": self.lease_seconds,
            "lease_seconds": self.lease_seconds,
            "segment_interval_seconds": 1,
            // What a killed client had reserved is free again in time for the last look.
            "limits": {
                "actions_idle_seconds_max": self.lease_seconds,
                "actions_uploads_per_minute_max": 0,
            },
        });
        if self.collect {
            config["gc_interval_seconds"] = 1.into();
            config["gc_grace_seconds"] = 1.into();
        }
        let server = Server::start_with(&self.binary, &config.to_string(), "info");
        let client = Client::new(&server.url(), Some(&server.token()));
        let mut run = Run {
            plan: self,
            server,
            ledger: Arc::default(),
            jobs: Jobs::new(client.clone()),
            client,
            kills: 0,
            largest_bytes: 0,
        };
        run.under_load();
        run.check_all();
        if self.collect {
            run.collect_the_rest();
            run.check_all();
        }
        let folder = run.stop();
        let report = Report {
            seconds: began.elapsed().as_secs(),
            kills: run.kills,
            largest_bytes: run.largest_bytes,
            folder,
            ledger: run.ledger.clone(),
        };
        println!("{report}");
        assert!(
            report.faults().is_empty(),
            "seed {}: {:#?}",
            self.seed,
            report.faults()
        );
        report
    }

    fn pusher(&self, index: usize, run: &Run<'_>, numbers: &Arc<AtomicU64>) -> Pusher {
        Pusher {
            index,
            way: self.pushers[index],
            run: self.seed,
            batches: self.batches,
            keep: self.keep,
            numbers: numbers.clone(),
            ledger: run.ledger.clone(),
            client: run.client.clone(),
            jobs: run.jobs.clone(),
            url: run.server.url(),
            token: run.server.token(),
            binary: self.binary.clone(),
        }
    }
}

impl Run<'_> {
    /// Everybody at work, and the server killed.
    fn under_load(&mut self) {
        let numbers = Arc::new(AtomicU64::new(1));
        let mut threads = Vec::new();
        for index in 0..self.plan.pushers.len() {
            let pusher = self.plan.pusher(index, self, &numbers);
            threads.push(std::thread::spawn(move || pusher.run()));
        }
        for index in 0..self.plan.pullers {
            let puller = Puller {
                ledger: self.ledger.clone(),
                client: self.client.clone(),
                jobs: self.jobs.clone(),
                url: self.server.url(),
                random: Random::new(self.plan.seed + index as u64),
                nix: index == 0,
            };
            threads.push(std::thread::spawn(move || puller.run()));
        }
        if self.plan.collect {
            let (ledger, client) = (self.ledger.clone(), self.client.clone());
            threads.push(std::thread::spawn(move || {
                collect_all_the_time(&ledger, &client)
            }));
        }
        self.kill_again_and_again();
        self.ledger.stop();
        for thread in threads {
            thread.join().expect("a client of the soak ended badly");
        }
    }

    fn kill_again_and_again(&mut self) {
        let end = Instant::now() + self.plan.time;
        let mut random = Random::new(self.plan.seed);
        let spread = self
            .plan
            .kill_after
            .end
            .saturating_sub(self.plan.kill_after.start);
        while self.kills < self.plan.kills && Instant::now() < end {
            let more = random.below(spread.as_micros().max(1) as u64);
            let next = Instant::now() + self.plan.kill_after.start + Duration::from_micros(more);
            while Instant::now() < next.min(end) {
                std::thread::sleep(Duration::from_millis(5));
            }
            if self.ledger.faults().len() >= FAULTS_MAX {
                return;
            }
            let size = crate::folder::bytes_below(self.server.data());
            self.largest_bytes = self.largest_bytes.max(size);
            self.ledger.turn();
            self.server.crash();
            self.server.restart();
            self.ledger.turn();
            self.kills += 1;
        }
    }

    /// Rules 2 to 4: what was acknowledged is there; what is visible is whole, acknowledged or not.
    fn check_all(&self) {
        for (cache, item) in self.ledger.all() {
            let began = self.ledger.now();
            let read = read_item(&self.client, &self.jobs, &cache, &item, began / 2);
            judge(&self.ledger, began, &cache, &item, read);
        }
        for (index, (cache, item)) in (0..).zip(self.ledger.attempted()) {
            if let Err(pull::Trouble::Failed(why) | pull::Trouble::Wrong(why)) =
                read_item(&self.client, &self.jobs, &cache, &item, index)
            {
                self.ledger
                    .fault(format!("{cache} {item:?} is visible, but: {why}"));
            }
        }
    }

    /// Waits for all leases and sessions, and collects until there is nothing to be collected.
    fn collect_the_rest(&self) {
        std::thread::sleep(Duration::from_secs(self.plan.lease_seconds + 1));
        for _ in 0..COLLECTIONS_MAX {
            match collect(&self.client, DEAD_PERCENT_LAST) {
                Ok(false) => return,
                Ok(true) => std::thread::sleep(Duration::from_millis(1100)),
                Err(error) => self.ledger.fault(format!("the last collection: {error}")),
            }
        }
        self.ledger
            .fault("collection does not come to an end".to_owned());
    }

    fn stop(&mut self) -> Folder {
        if !self.server.stop() {
            self.ledger.fault("the server did not end well".to_owned());
        }
        let folder = Folder::look(self.server.data());
        let left_over = folder.left_over();
        for what in left_over.iter().filter(|_| self.plan.collect) {
            self.ledger.fault(format!("left over: {what}"));
        }
        folder
    }
}

/// Collects at once; says whether there was anything.
fn collect(client: &Client, dead_percent: u8) -> Result<bool, String> {
    let body = serde_json::json!({"grace_seconds": 0, "dead_percent": dead_percent}).to_string();
    let answer = client.send(
        "POST",
        "/api/v1/gc",
        Some("application/json"),
        body.as_bytes(),
    )?;
    if answer.status != 200 {
        return answer.taken("collecting").map(|()| false);
    }
    let report: serde_json::Value =
        serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
    Ok(report.as_object().is_some_and(|fields| {
        fields
            .iter()
            .any(|(name, value)| report::is_work(name) && value.as_u64().is_some_and(|n| n > 0))
    }))
}

fn collect_all_the_time(ledger: &Ledger, client: &Client) {
    while !ledger.stopped() {
        let began = ledger.now();
        match collect(client, DEAD_PERCENT) {
            Ok(_) => ledger.count("collections", 1),
            Err(error) if ledger.was_up_since(began) => {
                ledger.fault(format!("collecting: {error}"))
            }
            Err(_) => {}
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
