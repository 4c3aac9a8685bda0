//! Many small things at once.

use crate::{
    error::{ClientError, Result},
    push::work::lock,
};
use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

/// Does `work` for `0..count` on at most `threads` threads; the results in order, or the first failure, after
/// which nothing more is begun.
pub(crate) fn each<T: Send>(
    count: usize,
    threads: usize,
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<ClientError>> = Mutex::default();
    let done: Mutex<Vec<(usize, T)>> = Mutex::new(Vec::with_capacity(count));
    let run = || {
        while lock(&failure).is_none() {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                break;
            }
            match work(index) {
                Ok(result) => lock(&done).push((index, result)),
                Err(error) => {
                    lock(&failure).get_or_insert(error);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.min(count) {
            scope.spawn(run);
        }
    });
    if let Some(error) = lock(&failure).take() {
        return Err(error);
    }
    let mut done = std::mem::take(&mut *lock(&done));
    if done.len() != count {
        return Err(ClientError::WorkerLost);
    }
    done.sort_unstable_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_the_first_failure_ends_it() {
        assert_eq!(
            each(50, 4, |index| Ok(index * 2)).expect("all"),
            (0..50).map(|i| i * 2).collect::<Vec<_>>()
        );
        assert!(each(0, 4, Ok).expect("none").is_empty());
        let begun = AtomicUsize::new(0);
        let failed = each(1000, 2, |index| {
            begun.fetch_add(1, Ordering::Relaxed);
            match index {
                3 => Err(ClientError::WorkerLost),
                _ => Ok(()),
            }
        });
        assert!(failed.is_err());
        assert!(begun.into_inner() < 1000);
    }
}
