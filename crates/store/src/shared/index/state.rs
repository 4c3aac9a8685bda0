//! Which segments the index holds, and what follows for its rows when others come or go.
//!
//! The rows are always the union of the *live* segments: those that are listed and that no other listed one
//! covers. A segment that stops being live takes nothing with it if its content is also in a live one (a merge
//! that dropped nothing); otherwise the rows are made anew out of the live segments, whose bytes are kept here.

use super::{Index, Taken, apply};
use crate::StoreError;
use firn_chunks::segment;
use rusqlite::{Connection, OptionalExtension as _, params};
use std::collections::{HashMap, HashSet};

const LIVE: u8 = 1;
const COVERED: u8 = 2;
const REFUSED: u8 = 3;

/// Who signed a segment, as far as the reader can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::shared) enum Signer {
    Nobody,
    /// The public key.
    Key([u8; 32]),
    /// By a key that is not known here.
    Unknown,
}

impl Signer {
    fn column(&self) -> Option<&[u8]> {
        match self {
            Self::Nobody => None,
            Self::Key(key) => Some(key),
            Self::Unknown => Some(&[]),
        }
    }

    fn from_column(column: Option<Vec<u8>>) -> Self {
        match column {
            None => Self::Nobody,
            Some(bytes) => bytes.try_into().map_or(Self::Unknown, Self::Key),
        }
    }
}

/// A segment whose content is in the index.
#[derive(Debug, Clone)]
pub(in crate::shared) struct LiveSegment {
    pub(in crate::shared) name: String,
    pub(in crate::shared) signer: Signer,
    pub(in crate::shared) size: u64,
}

/// One segment covers another.
#[derive(Debug, Clone)]
struct Cover {
    by: String,
    dropped: bool,
}

/// The segments that were read, or refused.
#[derive(Debug, Default)]
pub(in crate::shared) struct Known {
    states: HashMap<String, u8>,
    /// By the name of the covered one.
    covers: HashMap<String, Vec<Cover>>,
}

impl Known {
    fn load(connection: &Connection) -> Result<Self, StoreError> {
        let mut known = Self::default();
        let mut statement = connection.prepare_cached("SELECT name, state FROM segments")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        known.states = rows.collect::<Result<_, _>>()?;
        let mut statement =
            connection.prepare_cached("SELECT covered, segment, dropped FROM covers")?;
        let rows = statement.query_map([], |row| {
            let (by, dropped) = (row.get(1)?, row.get(2)?);
            Ok((row.get::<_, String>(0)?, Cover { by, dropped }))
        })?;
        for row in rows {
            let (covered, cover) = row?;
            known.covers.entry(covered).or_default().push(cover);
        }
        Ok(known)
    }

    pub(in crate::shared) fn contains(&self, name: &str) -> bool {
        self.states.contains_key(name)
    }

    pub(in crate::shared) fn is_refused(&self, name: &str) -> bool {
        self.states.get(name) == Some(&REFUSED)
    }

    /// Whether one of the listed segments covers this one.
    pub(in crate::shared) fn is_covered(&self, name: &str, listed: &HashSet<&str>) -> bool {
        let covers = self.covers.get(name).map(Vec::as_slice).unwrap_or_default();
        covers.iter().any(|cover| listed.contains(&*cover.by))
    }

    /// Notes a segment that was just read.
    pub(in crate::shared) fn add(&mut self, taken: &Taken) {
        self.states.insert(taken.name.clone(), LIVE);
        for (covered, dropped) in covered(&taken.segment) {
            let by = taken.name.clone();
            let covers = self.covers.entry(covered.clone()).or_default();
            covers.push(Cover { by, dropped });
        }
    }

    /// Whether all that a segment told is in one of the live ones.
    fn is_told(&self, name: &str, live: &HashSet<&str>) -> bool {
        let (mut pending, mut seen) = (vec![name], HashSet::new());
        while let Some(name) = pending.pop() {
            if live.contains(name) {
                return true;
            }
            if seen.insert(name) {
                let covers = self.covers.get(name).map(Vec::as_slice).unwrap_or_default();
                let whole = covers.iter().filter(|cover| !cover.dropped);
                pending.extend(whole.map(|cover| cover.by.as_str()));
            }
        }
        false
    }
}

/// What taking in came to.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::shared) struct TakenIn {
    pub(in crate::shared) new: u64,
    /// A segment that was covered no longer is, and has to be read again.
    pub(in crate::shared) again: bool,
}

impl Index {
    pub(in crate::shared) fn known(&self) -> Result<Known, StoreError> {
        self.read(Known::load)
    }

    /// Makes the rows the union of what is live now, in one transaction. `listing` is all that the place shows,
    /// `now` microseconds since 1970.
    pub(in crate::shared) fn take_in(
        &self,
        listing: &[String],
        new: &[Taken],
        refused: &[String],
        now: u64,
    ) -> Result<TakenIn, StoreError> {
        self.write(|connection| {
            let taken_in = take_in(connection, listing, new, refused)?;
            set_refreshed(connection, now)?;
            Ok(taken_in)
        })
    }

    /// When the place was last asked, in microseconds since 1970; 0 if never.
    pub(in crate::shared) fn refreshed_at(&self) -> Result<u64, StoreError> {
        self.read(|connection| {
            let at = connection
                .prepare_cached("SELECT value FROM meta WHERE key = 'refreshed_at'")?
                .query_row([], |row| row.get::<_, i64>(0))
                .optional()?;
            Ok(at.unwrap_or_default().cast_unsigned())
        })
    }

    /// The live segments, newest first.
    pub(in crate::shared) fn live(&self) -> Result<Vec<LiveSegment>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT name, signer, size FROM segments WHERE state = ?1 ORDER BY name DESC",
            )?;
            let rows = statement.query_map([LIVE], |row| {
                Ok(LiveSegment {
                    name: row.get(0)?,
                    signer: Signer::from_column(row.get(1)?),
                    size: row.get::<_, i64>(2)?.cast_unsigned(),
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// What the place showed at the last refresh.
    pub(in crate::shared) fn listing(&self) -> Result<Vec<String>, StoreError> {
        self.read(listed)
    }

    /// What a segment covers and is still listed, and whether something of it was dropped.
    pub(in crate::shared) fn covered_by(
        &self,
        name: &str,
    ) -> Result<Vec<(String, bool)>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT covered, dropped FROM covers JOIN listing ON name = covered
                     WHERE segment = ?1",
            )?;
            let rows = statement.query_map([name], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Takes in a segment that this process has just published.
    pub(in crate::shared) fn add_own(&self, taken: Taken) -> Result<(), StoreError> {
        self.write(|connection| {
            let mut listing = listed(connection)?;
            listing.push(taken.name.clone());
            take_in(connection, &listing, &[taken], &[])?;
            Ok(())
        })
    }

    /// The time in the newest name of all segments that were believed, in microseconds since 1970. Others' names may
    /// say any time, up to one after which none comes.
    pub(in crate::shared) fn newest(&self) -> Result<u64, StoreError> {
        self.read(|connection| {
            let name: Option<String> = connection.query_row(
                "SELECT max(name) FROM listing JOIN segments USING (name) WHERE state <> ?1",
                [REFUSED],
                |row| row.get(0),
            )?;
            Ok(name.as_deref().and_then(time_of).unwrap_or_default())
        })
    }

    /// A live segment, read from what is kept of it.
    pub(in crate::shared) fn segment(
        &self,
        name: &str,
    ) -> Result<Option<segment::Segment>, StoreError> {
        self.read(|connection| kept(connection, name))
    }
}

/// The time a segment's name begins with.
pub(in crate::shared) fn time_of(name: &str) -> Option<u64> {
    u64::from_str_radix(name.get(..16)?, 16).ok()
}

fn set_refreshed(connection: &Connection, now: u64) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO meta (key, value) VALUES ('refreshed_at', ?1)
             ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        )?
        .execute([now as i64])?;
    Ok(())
}

fn listed(connection: &Connection) -> Result<Vec<String>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT name FROM listing")?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn take_in(
    connection: &Connection,
    listing: &[String],
    new: &[Taken],
    refused: &[String],
) -> Result<TakenIn, StoreError> {
    let mut known = Known::load(connection)?;
    // Another process may have taken some of them in meanwhile.
    let new: Vec<&Taken> = new
        .iter()
        .filter(|taken| !known.contains(&taken.name))
        .collect();
    let was_live: Vec<String> = names_in(&known, LIVE);
    let was_covered: Vec<String> = names_in(&known, COVERED);
    new.iter().for_each(|taken| known.add(taken));
    let listed: HashSet<&str> = listing
        .iter()
        .map(String::as_str)
        .filter(|name| known.contains(name) && !known.is_refused(name))
        .collect();
    let live: HashSet<&str> = listed
        .iter()
        .copied()
        .filter(|name| !known.is_covered(name, &listed))
        .collect();

    let again: Vec<&String> = was_covered
        .iter()
        .filter(|name| live.contains(name.as_str()))
        .collect();
    let rebuild = was_live.iter().any(|name| !known.is_told(name, &live));
    if rebuild {
        apply::clear(connection)?;
        for name in was_live.iter().filter(|name| live.contains(name.as_str())) {
            if let Some(segment) = kept(connection, name)? {
                apply::records(connection, &segment.records)?;
            }
        }
    }
    for taken in &new {
        let is_live = live.contains(taken.name.as_str());
        if is_live {
            apply::records(connection, &taken.segment.records)?;
        }
        insert(connection, taken, if is_live { LIVE } else { COVERED })?;
    }
    note_refused(connection, refused)?;
    retire(connection, listing, &was_live, &live)?;
    for name in &again {
        forget(connection, name)?;
    }
    Ok(TakenIn {
        new: new.len() as u64,
        again: !again.is_empty(),
    })
}

fn names_in(known: &Known, state: u8) -> Vec<String> {
    let names = known.states.iter().filter(|(_, found)| **found == state);
    names.map(|(name, _)| name.clone()).collect()
}

fn kept(connection: &Connection, name: &str) -> Result<Option<segment::Segment>, StoreError> {
    let bytes: Option<Option<Vec<u8>>> = connection
        .prepare_cached("SELECT bytes FROM segments WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    let Some(bytes) = bytes.flatten() else {
        return Ok(None);
    };
    segment::decode(&bytes)
        .map(Some)
        .map_err(|error| StoreError::Damaged(format!("segment {name} in the local index: {error}")))
}

fn insert(connection: &Connection, taken: &Taken, state: u8) -> Result<(), StoreError> {
    let bytes = (state == LIVE).then_some(&taken.bytes);
    connection
        .prepare_cached(
            "INSERT INTO segments (name, state, signer, size, bytes) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            taken.name,
            state,
            taken.signer.column(),
            taken.bytes.len() as i64,
            bytes,
        ])?;
    let mut insert = connection.prepare_cached(
        "INSERT OR IGNORE INTO covers (segment, covered, dropped) VALUES (?1, ?2, ?3)",
    )?;
    for (covered, dropped) in covered(&taken.segment) {
        insert.execute(params![taken.name, covered, dropped])?;
    }
    Ok(())
}

/// The names a segment covers, and whether something of them was dropped.
fn covered(segment: &segment::Segment) -> impl Iterator<Item = (&String, bool)> {
    let all = segment.covers.iter();
    all.flat_map(|covers| covers.segments.iter().map(|name| (name, covers.dropped)))
}

fn note_refused(connection: &Connection, refused: &[String]) -> Result<(), StoreError> {
    let mut insert = connection
        .prepare_cached("INSERT OR IGNORE INTO segments (name, state, size) VALUES (?1, ?2, 0)")?;
    for name in refused {
        insert.execute(params![name, REFUSED])?;
    }
    Ok(())
}

/// Keeps no bytes of what is live no longer, and nothing at all of what is listed no longer.
fn retire(
    connection: &Connection,
    listing: &[String],
    was_live: &[String],
    live: &HashSet<&str>,
) -> Result<(), StoreError> {
    let mut cover = connection
        .prepare_cached("UPDATE segments SET state = ?2, bytes = NULL WHERE name = ?1")?;
    for name in was_live.iter().filter(|name| !live.contains(name.as_str())) {
        cover.execute(params![name, COVERED])?;
    }
    connection.execute("DELETE FROM listing", [])?;
    let mut insert =
        connection.prepare_cached("INSERT OR IGNORE INTO listing (name) VALUES (?1)")?;
    for name in listing {
        insert.execute([name])?;
    }
    let listed: HashSet<&str> = listing.iter().map(String::as_str).collect();
    for name in Known::load(connection)?.states.keys() {
        if !listed.contains(name.as_str()) {
            forget(connection, name)?;
        }
    }
    Ok(())
}

fn forget(connection: &Connection, name: &str) -> Result<(), StoreError> {
    connection
        .prepare_cached("DELETE FROM segments WHERE name = ?1")?
        .execute([name])?;
    connection
        .prepare_cached("DELETE FROM covers WHERE segment = ?1")?
        .execute([name])?;
    Ok(())
}
