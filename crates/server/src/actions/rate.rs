//! How many uploads a repository may begin in a minute.

use firn_formats::actions::RepositoryName;
use firn_services::actions::Repository;
use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);
/// Repositories remembered; more than these in a minute are let in uncounted.
const REPOSITORIES_MAX: usize = 10_000;

type Began = HashMap<(i64, RepositoryName), VecDeque<Instant>>;

/// Uploads begun in the last minute, by repository.
pub(crate) struct Rate {
    most: usize,
    began: Mutex<Began>,
}

impl Rate {
    /// `most` in a minute; 0 is as many as come.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            began: Mutex::default(),
        }
    }

    /// Counts one, or says in how many seconds the next may come.
    pub(crate) fn admit(&self, repository: &Repository) -> Result<(), u64> {
        let key = (repository.cache.row.id.0, repository.name.clone());
        self.admit_at(key, Instant::now())
    }

    fn admit_at(&self, key: (i64, RepositoryName), now: Instant) -> Result<(), u64> {
        if self.most == 0 {
            return Ok(());
        }
        let old = |at: &Instant| now.duration_since(*at) >= MINUTE;
        let mut began = self
            .began
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if began.len() >= REPOSITORIES_MAX && !began.contains_key(&key) {
            began.retain(|_, times| times.back().is_some_and(|last| !old(last)));
            if began.len() >= REPOSITORIES_MAX {
                return Ok(());
            }
        }
        let times = began.entry(key).or_default();
        while times.front().is_some_and(old) {
            times.pop_front();
        }
        match times.front() {
            Some(first) if times.len() >= self.most => {
                let rest = MINUTE.saturating_sub(now.duration_since(*first));
                Err(rest.as_secs() + 1)
            }
            _ => {
                times.push_back(now);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_waits_and_another_does_not() {
        let rate = Rate::new(2);
        let key = |name: &str| (1, RepositoryName::parse(name).unwrap());
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(rate.admit_at(key("a/b"), at(0)), Ok(()));
        assert_eq!(rate.admit_at(key("a/b"), at(10)), Ok(()));
        assert_eq!(rate.admit_at(key("a/b"), at(20)), Err(41));
        assert_eq!(rate.admit_at(key("a/c"), at(20)), Ok(()));
        assert_eq!(rate.admit_at(key("a/b"), at(60)), Ok(()));
        assert_eq!(rate.admit_at(key("a/b"), at(61)), Err(10));
        let free = Rate::new(0);
        assert!((0..1000).all(|_| free.admit_at(key("a/b"), now).is_ok()));
    }
}
