//! Taking in segments that are new, from the newest down, so that those a newer one covers are never read.

use super::index::{Known, Signer, Taken, is_sound};
use super::{Inner, Refreshed};
use crate::StoreError;
use firn_chunks::segment::{self, Segment};
use std::collections::HashSet;
use std::sync::PoisonError;

/// Segments read at once: the newest cover most of the others in a store that is tended, so these are read
/// alone; where they do not, there are many and time counts.
const BATCHES: &[usize] = &[1, 1, 1, 1, 2, 4, 8, 16];
/// A collector may delete what was just listed; then the list is asked for again.
const ROUNDS_MAX: usize = 3;

/// What one look at the place gave.
#[derive(Default)]
struct Round {
    taken: Vec<Taken>,
    refused: Vec<String>,
    damaged: u64,
    gone: u64,
}

/// What became of one segment.
enum Outcome {
    Taken(Box<Taken>),
    Refused,
    Damaged,
    Gone,
}

impl Inner {
    /// See [`super::SharedStore::refresh`].
    pub(super) fn refresh(&self) -> Result<Refreshed, StoreError> {
        let _one = self
            .refreshing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut refreshed = Refreshed::default();
        for _ in 0..ROUNDS_MAX {
            let now = super::clock::micros();
            let mut listing = self.backend.segments()?;
            listing.sort_unstable_by(|a, b| b.cmp(a));
            let mut known = self.index.known()?;
            let round = self.read_new(&listing, &mut known)?;
            let taken_in = self
                .index
                .take_in(&listing, &round.taken, &round.refused, now)?;
            let refused_before = listing.iter().filter(|name| known.is_refused(name)).count();
            refreshed.segments_total = listing.len() as u64;
            refreshed.segments_new += taken_in.new;
            refreshed.segments_refused = (refused_before + round.refused.len()) as u64;
            refreshed.segments_unreadable = round.damaged + round.gone;
            if round.gone == 0 && !taken_in.again {
                break;
            }
        }
        Ok(refreshed)
    }

    /// Reads what is listed, not known and not covered. `listing` begins with the newest.
    fn read_new(&self, listing: &[String], known: &mut Known) -> Result<Round, StoreError> {
        let mut round = Round::default();
        // Only what was read and believed may cover anything.
        let mut believed: HashSet<&str> = listing
            .iter()
            .map(String::as_str)
            .filter(|name| known.contains(name) && !known.is_refused(name))
            .collect();
        let mut rest: Vec<&String> = listing
            .iter()
            .filter(|name| !known.contains(name))
            .collect();
        let mut batches = BATCHES.iter().chain(BATCHES.last().into_iter().cycle());
        while !rest.is_empty() {
            rest.retain(|name| !known.is_covered(name, &believed));
            let count = batches.next().map_or(1, |count| *count).min(rest.len());
            let batch: Vec<&String> = rest.drain(..count).collect();
            for (name, outcome) in batch.iter().zip(self.read_batch(&batch)?) {
                match outcome {
                    Outcome::Taken(taken) => {
                        known.add(&taken);
                        believed.insert(name);
                        round.taken.push(*taken);
                    }
                    Outcome::Refused => round.refused.push((*name).clone()),
                    Outcome::Damaged => round.damaged += 1,
                    Outcome::Gone => round.gone += 1,
                }
            }
        }
        Ok(round)
    }

    fn read_batch(&self, names: &[&String]) -> Result<Vec<Outcome>, StoreError> {
        if let [name] = names {
            return Ok(vec![self.read_one(name)?]);
        }
        std::thread::scope(|scope| {
            let readers: Vec<_> = names
                .iter()
                .map(|name| scope.spawn(|| self.read_one(name)))
                .collect();
            readers
                .into_iter()
                .map(|reader| {
                    reader
                        .join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })
                .collect()
        })
    }

    fn read_one(&self, name: &str) -> Result<Outcome, StoreError> {
        let Some(bytes) = self.backend.segment(name)? else {
            return Ok(Outcome::Gone);
        };
        let segment = match segment::decode(&bytes) {
            Ok(segment) if is_sound(&segment) => segment,
            Ok(_) => {
                tracing::warn!(segment = name, "a segment's numbers are out of range");
                return Ok(Outcome::Damaged);
            }
            Err(error) => {
                tracing::warn!(segment = name, %error, "a segment cannot be read");
                return Ok(Outcome::Damaged);
            }
        };
        let signer = self.signer(&segment);
        if !self.trusted.is_empty() && !matches!(signer, Signer::Key(_)) {
            return Ok(Outcome::Refused);
        }
        Ok(Outcome::Taken(Box::new(Taken {
            name: name.to_owned(),
            bytes,
            segment,
            signer,
        })))
    }

    /// Who signs the segments that are written here.
    pub(super) fn own_signer(&self) -> Signer {
        let key = self.options.signing_key.as_ref();
        key.map_or(Signer::Nobody, |key| Signer::Key(key.public().bytes))
    }

    /// Who signed a segment.
    pub(super) fn signer(&self, segment: &Segment) -> Signer {
        let Some(signed) = &segment.signed else {
            return Signer::Nobody;
        };
        let own = self.options.signing_key.as_ref().map(|key| key.public());
        let mut keys = self.trusted.iter().chain(&own);
        keys.find(|key| signed.by(key))
            .map_or(Signer::Unknown, |key| Signer::Key(key.bytes))
    }
}
