//! What the server has promised, and when it was there to keep it.

use super::entry::Save;
use super::lock;
use super::sample::{Random, Seed};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Something that a server has promised to keep.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Item {
    /// A store path.
    Path(Seed),
    /// An image whose layer is the archive of this path, by its manifest's digest.
    Image(Seed, String),
    /// An entry of the Actions cache.
    Entry(Save),
}

/// What each cache has promised.
#[derive(Default)]
pub(super) struct Ledger {
    caches: Mutex<BTreeMap<String, BTreeSet<Item>>>,
    /// What was ever asked to be kept in the caches that are there: acknowledged or not.
    attempted: Mutex<BTreeSet<(String, Item)>>,
    /// Grows with each kill and each start: odd while the server is down.
    epoch: AtomicU64,
    stop: AtomicBool,
    faults: Mutex<Vec<String>>,
    /// Figures by name.
    counts: Mutex<BTreeMap<&'static str, u64>>,
}

impl Ledger {
    /// The server acknowledged it.
    pub(super) fn acknowledge(&self, cache: &str, items: impl IntoIterator<Item = Item>) {
        let mut caches = lock(&self.caches);
        let of_cache = caches.entry(cache.to_owned()).or_default();
        for item in items {
            of_cache.insert(item);
        }
    }

    /// A push begins: from here on it may be visible.
    pub(super) fn attempt(&self, cache: &str, item: Item) {
        lock(&self.attempted).insert((cache.to_owned(), item));
    }

    /// All that may be visible.
    pub(super) fn attempted(&self) -> Vec<(String, Item)> {
        lock(&self.attempted).iter().cloned().collect()
    }

    /// Called before the deletion is asked for: from here on nothing is promised.
    pub(super) fn forget_cache(&self, cache: &str) {
        lock(&self.caches).remove(cache);
        lock(&self.attempted).retain(|(of, _)| of != cache);
    }

    /// As [`Ledger::forget_cache`], of one thing.
    pub(super) fn forget(&self, cache: &str, item: &Item) {
        if let Some(items) = lock(&self.caches).get_mut(cache) {
            items.remove(item);
        }
        let of_cache = |(of, other): &(String, Item)| of == cache && other == item;
        lock(&self.attempted).retain(|attempted| !of_cache(attempted));
    }

    /// Whether it is promised still.
    pub(super) fn promised(&self, cache: &str, item: &Item) -> bool {
        lock(&self.caches)
            .get(cache)
            .is_some_and(|items| items.contains(item))
    }

    /// Something that is promised.
    pub(super) fn any(&self, random: &mut Random) -> Option<(String, Item)> {
        let caches = lock(&self.caches);
        let filled: Vec<_> = caches
            .iter()
            .filter(|(_, items)| !items.is_empty())
            .collect();
        let index = random.below(filled.len().max(1) as u64) as usize;
        let (cache, items) = filled.get(index)?;
        let item = items
            .iter()
            .nth(random.below(items.len() as u64) as usize)?;
        Some(((*cache).clone(), item.clone()))
    }

    /// All that is promised.
    pub(super) fn all(&self) -> Vec<(String, Item)> {
        let caches = lock(&self.caches);
        let each = caches
            .iter()
            .flat_map(|(cache, items)| items.iter().map(|item| (cache.clone(), item.clone())));
        each.collect()
    }

    /// When something began: whether the server was up all the time is asked with it.
    pub(super) fn now(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Whether the server was up from `then` until now, so that no failure is excused.
    pub(super) fn was_up_since(&self, then: u64) -> bool {
        then.is_multiple_of(2) && self.now() == then
    }

    /// The server goes down, or is up again.
    pub(super) fn turn(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// Tells all threads to end.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Whether they should.
    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// A promise that was broken.
    pub(super) fn fault(&self, what: String) {
        eprintln!("fault: {what}");
        lock(&self.faults).push(what);
    }

    /// All broken promises.
    pub(super) fn faults(&self) -> Vec<String> {
        lock(&self.faults).clone()
    }

    /// Adds to a figure.
    pub(super) fn count(&self, name: &'static str, more: u64) {
        *lock(&self.counts).entry(name).or_default() += more;
    }

    /// A figure.
    pub(super) fn counted(&self, name: &str) -> u64 {
        lock(&self.counts).get(name).copied().unwrap_or(0)
    }
}
