//! The store's clock, which decides about data (rule 10).
//!
//! It begins at wall time and then advances with `CLOCK_BOOTTIME`, which nobody can set. How far it has come is kept
//! in the database, so that it goes on after a stop. A stop counts as at most a day, however long it was: nothing
//! could be used meanwhile, and the wall clock may be wrong when the machine starts. An operator may say that it is
//! right ([`Clock::confirm`]).

use crate::StoreError;
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The longest that a stop counts, in milliseconds.
const STOP_MAX: i64 = 24 * 3600 * 1000;
/// A mark is written when the last is so old, in milliseconds.
const MARK_EVERY: i64 = 20_000;
/// Clocks that differ by so much more or less than was said last are worth another line in the log, in milliseconds.
const DIFFERENCE_TOLD: i64 = 5 * 60 * 1000;

type Source = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Where a store's clock gets the time from.
#[derive(Clone)]
pub struct TimeSources {
    wall: Source,
    boot: Source,
    boot_id: i64,
}

impl TimeSources {
    /// The system's clocks.
    pub fn system() -> Self {
        Self::new(wall, boot, boot_id())
    }

    /// `wall` is milliseconds since 1970, `boot` milliseconds since the machine was started, and `boot_id` is another
    /// after each start of the machine; 0 if it is not known.
    pub fn new(
        wall: impl Fn() -> i64 + Send + Sync + 'static,
        boot: impl Fn() -> i64 + Send + Sync + 'static,
        boot_id: i64,
    ) -> Self {
        Self {
            wall: Arc::new(wall),
            boot: Arc::new(boot),
            boot_id,
        }
    }
}

impl fmt::Debug for TimeSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeSources").finish_non_exhaustive()
    }
}

fn wall() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

fn boot() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    time.tv_sec * 1000 + time.tv_nsec / 1_000_000
}

/// The first 15 digits of the kernel's id of this boot.
fn boot_id() -> i64 {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(15)
        .collect();
    i64::from_str_radix(&digits, 16).unwrap_or(0)
}

/// How far the clock had come, as the database keeps it; in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    store: i64,
    wall: i64,
    boot: i64,
    boot_id: i64,
}

impl Mark {
    const NAMES: [&str; 4] = [
        "clock_ms",
        "clock_wall_ms",
        "clock_boot_ms",
        "clock_boot_id",
    ];

    fn load(connection: &Connection) -> Result<Option<Self>, StoreError> {
        let mut values = [0; 4];
        for (name, value) in Self::NAMES.iter().zip(&mut values) {
            let found = connection
                .query_row("SELECT value FROM meta WHERE name = ?", [name], |row| {
                    row.get(0)
                })
                .optional()?;
            let Some(found) = found else { return Ok(None) };
            *value = found;
        }
        let [store, wall, boot, boot_id] = values;
        Ok(Some(Self {
            store,
            wall,
            boot,
            boot_id,
        }))
    }

    fn save(&self, connection: &Connection) -> Result<(), StoreError> {
        let values = [self.store, self.wall, self.boot, self.boot_id];
        let mut statement =
            connection.prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)")?;
        for (name, value) in Self::NAMES.iter().zip(values) {
            statement.execute(rusqlite::params![name, value])?;
        }
        Ok(())
    }

    /// The store's time at a start: within one boot by that clock, else by the wall clock; a day later at most.
    fn resume(&self, now: &Self) -> i64 {
        let same_boot = self.boot_id != 0 && self.boot_id == now.boot_id && now.boot >= self.boot;
        let stopped = if same_boot {
            now.boot.saturating_sub(self.boot)
        } else {
            // A wall clock that starts wrong each time, and is set right later, counts once.
            let lead = self.store.saturating_sub(self.wall);
            let since = now.wall.saturating_sub(self.wall);
            since.min(STOP_MAX.saturating_sub(lead))
        };
        self.store.saturating_add(stopped.clamp(0, STOP_MAX))
    }
}

/// The newest time that a database without a mark tells, in milliseconds: one of an earlier release, or one that was
/// just made anew from segments.
fn newest_known(connection: &Connection) -> Result<Option<i64>, StoreError> {
    Ok(connection.query_row(
        "SELECT max(ms) FROM (
             SELECT max(created_at) * 1000 AS ms FROM entries
             UNION ALL SELECT max(at_ms) FROM uses
             UNION ALL SELECT max(created_at) * 1000 FROM packs
             UNION ALL SELECT max(at) * 1000 FROM log
             UNION ALL SELECT max(at) * 1000 FROM evictions
             UNION ALL SELECT max(at) * 1000 FROM lookups
             UNION ALL SELECT value / 1000 FROM meta WHERE name = 'segment_at' AND value > 0)",
        [],
        |row| row.get(0),
    )?)
}

/// The clock of an open store.
#[derive(Debug)]
pub(crate) struct Clock {
    sources: TimeSources,
    /// What is added to the time since boot, in milliseconds.
    offset: AtomicI64,
    /// The store's time at the last mark.
    marked: AtomicI64,
    /// How far behind wall time it was when the log last said so.
    told: AtomicI64,
}

impl Clock {
    /// Goes on where the database says that the clock was.
    pub(crate) fn resume(
        connection: &Connection,
        sources: TimeSources,
    ) -> Result<Arc<Self>, StoreError> {
        let clock = Self {
            sources,
            offset: AtomicI64::new(0),
            marked: AtomicI64::new(i64::MIN),
            told: AtomicI64::new(0),
        };
        let read = clock.read();
        let now = match Mark::load(connection)? {
            Some(mark) => mark.resume(&read),
            // Times that lie ahead were written with a wrong clock, then or now.
            None => newest_known(connection)?.map_or(read.wall, |newest| {
                read.wall.min(newest.saturating_add(STOP_MAX))
            }),
        };
        clock
            .offset
            .store(now.saturating_sub(read.boot), Ordering::SeqCst);
        clock.tell();
        Ok(Arc::new(clock))
    }

    /// The clock for a database made anew: it goes on from the mark of the `old` one, or from the `newest` time that
    /// is known otherwise, in milliseconds.
    pub(crate) fn carry(
        old: &Path,
        newest: Option<i64>,
        connection: &Connection,
        sources: TimeSources,
    ) -> Result<Arc<Self>, StoreError> {
        let told = newest.map(|newest| {
            let newest = newest.min((sources.wall)());
            Mark {
                store: newest,
                wall: newest,
                boot: 0,
                boot_id: 0,
            }
        });
        if let Some(mark) = Self::mark_of(old).or(told) {
            mark.save(connection)?;
        }
        Self::resume(connection, sources)
    }

    /// The mark of a database that may be damaged, or not there.
    fn mark_of(path: &Path) -> Option<Mark> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let loaded = Connection::open_with_flags(path, flags)
            .map_err(StoreError::from)
            .and_then(|connection| Mark::load(&connection));
        loaded.unwrap_or_else(|error| {
            tracing::warn!(%error, "the old database does not tell the store's time: taking the newest segment's");
            None
        })
    }

    fn read(&self) -> Mark {
        let boot = (self.sources.boot)();
        Mark {
            store: boot.saturating_add(self.offset.load(Ordering::SeqCst)),
            wall: (self.sources.wall)(),
            boot,
            boot_id: self.sources.boot_id,
        }
    }

    /// Milliseconds since 1970, as the store counts them.
    pub(crate) fn now_ms(&self) -> i64 {
        self.read().store
    }

    /// By how much wall time is later than the store's; less than 0 if it is earlier.
    pub(crate) fn behind_ms(&self) -> i64 {
        let read = self.read();
        read.wall.saturating_sub(read.store)
    }

    /// Wall time is right: the clock goes on from there. It never goes back.
    pub(crate) fn confirm(&self) -> i64 {
        let behind = self.behind_ms().max(0);
        self.offset.fetch_add(behind, Ordering::SeqCst);
        self.told.store(self.behind_ms(), Ordering::SeqCst);
        tracing::info!(
            seconds = behind / 1000,
            "an operator confirmed the time: the store's clock was put forward"
        );
        behind
    }

    /// Whether the last mark is old enough for another.
    pub(crate) fn is_due(&self) -> bool {
        let marked = self.marked.load(Ordering::Relaxed);
        self.now_ms().saturating_sub(marked) >= MARK_EVERY
    }

    /// Writes down how far it has come.
    pub(crate) fn mark(&self, connection: &Connection) -> Result<(), StoreError> {
        let read = self.read();
        read.save(connection)?;
        self.marked.store(read.store, Ordering::Relaxed);
        Ok(())
    }

    /// Says in the log that wall time and the store's have come apart, or together again.
    pub(crate) fn tell(&self) {
        let behind = self.behind_ms();
        let told = self.told.load(Ordering::Relaxed);
        if behind.abs_diff(told) < DIFFERENCE_TOLD.unsigned_abs() {
            return;
        }
        self.told.store(behind, Ordering::Relaxed);
        match behind.unsigned_abs() < DIFFERENCE_TOLD.unsigned_abs() {
            true => tracing::info!("the wall clock and the store's clock agree again"),
            false => tracing::warn!(
                seconds = behind / 1000,
                hint = "ages in the store follow its own clock; if the wall clock is right, \
                        `firn gc --confirm-time` puts the store's clock forward",
                "the wall clock is ahead of the store's clock (if less than 0: behind)"
            ),
        }
    }

    /// Makes the clock known to a connection's statements: as `firn_now_ms()`, and in the place of `unixepoch()`,
    /// which the tables' defaults call. Both give one answer for all of a statement.
    pub(crate) fn install(self: &Arc<Self>, connection: &Connection) -> Result<(), StoreError> {
        let flags = FunctionFlags::SQLITE_UTF8
            | FunctionFlags::SQLITE_DETERMINISTIC
            | FunctionFlags::SQLITE_INNOCUOUS;
        let clock = self.clone();
        connection.create_scalar_function("firn_now_ms", 0, flags, move |_| Ok(clock.now_ms()))?;
        let clock = self.clone();
        connection.create_scalar_function("unixepoch", 0, flags, move |_| {
            Ok(clock.now_ms().div_euclid(1000))
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const DAY: i64 = 24 * HOUR;
    const T: i64 = 20_000 * DAY;

    fn mark(store: i64, wall: i64, boot: i64, boot_id: i64) -> Mark {
        Mark {
            store,
            wall,
            boot,
            boot_id,
        }
    }

    /// What a clock that stood at `T` says after a stop.
    fn after(wall: i64, boot: i64, boot_id: i64) -> i64 {
        mark(T, T, DAY, 1).resume(&mark(0, wall, boot, boot_id)) - T
    }

    #[test]
    fn within_one_boot_a_stop_is_as_long_as_that_clock_says() {
        for wall in [T, T + 40 * DAY, T - 40 * DAY] {
            assert_eq!(after(wall, DAY + HOUR, 1), HOUR);
            assert_eq!(after(wall, DAY + 3 * DAY, 1), DAY);
        }
    }

    #[test]
    fn over_boots_a_stop_is_as_long_as_wall_time_says_and_a_day_at_most() {
        assert_eq!(after(T + HOUR, 0, 2), HOUR);
        assert_eq!(after(T + 40 * DAY, 0, 2), DAY);
        assert_eq!(after(T - 40 * DAY, 0, 2), 0);
        // The same id, but that clock is behind: another machine's, or another namespace's.
        assert_eq!(after(T + HOUR, 0, 1), HOUR);
        let unknown = mark(T, T, 0, 0).resume(&mark(0, T + HOUR, 5 * HOUR, 0));
        assert_eq!(unknown, T + HOUR);
    }

    #[test]
    fn a_machine_that_always_starts_with_a_wrong_clock_gains_one_day() {
        let (mut store, mut wall) = (T, T);
        for boot_id in 2..42 {
            store = mark(store, wall, 0, 1).resume(&mark(0, T + 40 * DAY, 0, boot_id));
            // Set right before it stops.
            wall = T;
        }
        assert_eq!(store, T + DAY);
    }
}
