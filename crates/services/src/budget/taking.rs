//! Waiting for a lease.

use super::state::Waiter;
use super::{Budget, Client, Full, Lease};
use crate::sync::lock;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};

/// Requests of one client that wait at a time.
const WAITING_EACH_MAX: usize = 256;

pub(super) struct Unpark(pub(super) std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waiting for a lease. To stop is to drop it.
pub struct Taking {
    pub(super) budget: Budget,
    pub(super) client: Client,
    pub(super) amount: u64,
    pub(super) number: Option<u64>,
}

impl Future for Taking {
    type Output = Result<Lease, Full>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut state = lock(&this.budget.state);
        let Some(number) = this.number else {
            if this
                .budget
                .grant(&mut state, &this.client, this.amount)
                .is_ok()
            {
                return Poll::Ready(Ok(this.budget.lease(&this.client, this.amount)));
            }
            let of_client = |waiter: &&Waiter| waiter.client == this.client;
            if state.queue.iter().filter(of_client).count() >= WAITING_EACH_MAX {
                return Poll::Ready(Err(Full));
            }
            let number = state.next;
            state.next += 1;
            state.queue.push_back(Waiter {
                number,
                client: this.client.clone(),
                amount: this.amount,
                waker: Some(context.waker().clone()),
                granted: false,
            });
            this.number = Some(number);
            return Poll::Pending;
        };
        let found = state
            .queue
            .iter()
            .position(|waiter| waiter.number == number);
        let Some(index) = found else {
            return Poll::Ready(Err(Full));
        };
        let granted = state.queue.get(index).is_some_and(|waiter| waiter.granted);
        if granted {
            state.queue.remove(index);
            this.number = None;
            return Poll::Ready(Ok(this.budget.lease(&this.client, this.amount)));
        }
        if let Some(waiter) = state.queue.get_mut(index) {
            waiter.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let mut state = lock(&self.budget.state);
        let found = state
            .queue
            .iter()
            .position(|waiter| waiter.number == number);
        if let Some(waiter) = found.and_then(|index| state.queue.remove(index)) {
            if waiter.granted {
                state.take_back(&waiter.client, waiter.amount);
            }
            state.serve(&self.budget.shares);
        }
    }
}
