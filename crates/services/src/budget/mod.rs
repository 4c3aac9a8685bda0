//! One accountant for what the server holds for its clients: memory, and places for work.
//!
//! Every client has a share. Strangers, all of them together, have less than there is, and so has what is held
//! between requests: the rest is a reserve for requests that were let in. Who asks for more than there is waits, in
//! the order of asking; who waits only for a client's own share holds up nobody else.

mod state;
mod taking;
#[cfg(test)]
mod tests;

pub use taking::Taking;

use crate::sync::lock;
use state::{State, Waiter};
use std::future::Future as _;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use taking::Unpark;

/// What a client is to the accountant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Stranger,
    Known,
    Held,
}

/// For whom something is held.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Client {
    /// Nobody knows who it is, but for where it comes from.
    Stranger(IpAddr),
    /// What was let in; a cache's name, or what else is counted together.
    Known(Arc<str>),
    /// As [`Client::Known`], for what stays between requests.
    Held(Arc<str>),
}

impl Client {
    /// A client that was let in, by what its requests are counted by.
    pub fn known(name: &str) -> Self {
        Self::Known(name.into())
    }

    /// What is held for it between requests.
    pub fn held(name: &str) -> Self {
        Self::Held(name.into())
    }

    /// Whether nobody knows who it is.
    pub fn is_stranger(&self) -> bool {
        self.class() == Class::Stranger
    }

    fn class(&self) -> Class {
        match self {
            Self::Stranger(_) => Class::Stranger,
            Self::Known(_) => Class::Known,
            Self::Held(_) => Class::Held,
        }
    }
}

/// How much clients of one kind may have.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// One of them.
    pub each: u64,
    /// All of them together.
    pub all: u64,
}

/// How much there is, and for whom.
#[derive(Debug, Clone, Copy)]
pub struct Shares {
    /// For all.
    pub total: u64,
    /// For those that nobody knows.
    pub strangers: Share,
    /// For those that were let in.
    pub known: Share,
    /// For what stays between requests.
    pub held: Share,
}

impl Shares {
    fn of(&self, class: Class) -> Share {
        match class {
            Class::Stranger => self.strangers,
            Class::Known => self.known,
            Class::Held => self.held,
        }
    }
}

/// There is no room, and there was none for as long as one waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no room for this now")]
pub struct Full;

const MIB: u64 = 1 << 20;

/// The accountant of memory. What it does not count has bounds of its own: places for uploads and frames, small
/// bodies, buffers of connections; docs/limits.md has the sum.
pub fn memory() -> Budget {
    Budget::new(Shares {
        total: 256 * MIB,
        strangers: Share {
            each: 12 * MIB,
            all: 32 * MIB,
        },
        known: Share {
            each: 96 * MIB,
            all: 136 * MIB,
        },
        held: Share {
            each: 112 * MIB,
            all: 128 * MIB,
        },
    })
}

/// The accountant. Cloning shares it.
#[derive(Clone)]
pub struct Budget {
    shares: Arc<Shares>,
    state: Arc<Mutex<State>>,
}

/// Something that is held; given back when dropped.
pub struct Lease {
    budget: Budget,
    client: Client,
    amount: u64,
}

impl Budget {
    /// An accountant of so much.
    pub fn new(shares: Shares) -> Self {
        Self {
            shares: Arc::new(shares),
            state: Arc::default(),
        }
    }

    /// An accountant of places for work: no client has more than three quarters of them.
    pub fn places(total: usize) -> Self {
        let total = total.max(1) as u64;
        let share = Share {
            each: total - total / 4,
            all: total,
        };
        Self::new(Shares {
            total,
            strangers: share,
            known: share,
            held: share,
        })
    }

    /// An accountant of places for what anybody may ask for: strangers have one, and who was let in another.
    pub fn answers() -> Self {
        let share = Share { each: 1, all: 1 };
        Self::new(Shares {
            total: 2,
            strangers: share,
            known: share,
            held: share,
        })
    }

    /// An accountant of turns: each client has one, whatever the others have.
    pub fn turns() -> Self {
        let share = Share {
            each: 1,
            all: u64::MAX / 4,
        };
        Self::new(Shares {
            total: u64::MAX / 4,
            strangers: share,
            known: share,
            held: share,
        })
    }

    /// The most that one client can have.
    fn most(&self, client: &Client) -> u64 {
        let share = self.shares.of(client.class());
        share.each.min(share.all).min(self.shares.total)
    }

    /// The most that can be held for one client between requests.
    pub fn most_held(&self) -> u64 {
        self.most(&Client::held(""))
    }

    /// Takes so much at once, or nothing. Those who wait come first.
    ///
    /// # Errors
    /// If there is no room.
    pub fn try_take(&self, client: &Client, amount: u64) -> Result<Lease, Full> {
        let mut state = lock(&self.state);
        self.grant(&mut state, client, amount)?;
        Ok(self.lease(client, amount))
    }

    /// A lease that can grow.
    pub fn take_nothing(&self, client: &Client) -> Lease {
        self.lease(client, 0)
    }

    fn lease(&self, client: &Client, amount: u64) -> Lease {
        Lease {
            budget: self.clone(),
            client: client.clone(),
            amount,
        }
    }

    fn grant(&self, state: &mut State, client: &Client, amount: u64) -> Result<(), Full> {
        let shares = &self.shares;
        let waited_for = state.is_waited_for(shares, client);
        let fits = state.has_share(shares, client, amount)
            && state.has_room(shares, client, amount)
            && state.held + amount <= shares.total;
        if !fits || (waited_for && amount > 0) {
            return Err(Full);
        }
        state.give(client, amount);
        Ok(())
    }

    /// Waits for so much, or for all that the client can have if that is less. Ends with an error at once if too many
    /// requests of the client wait already.
    pub fn take(&self, client: &Client, amount: u64) -> Taking {
        let amount = amount.min(self.most(client));
        Taking {
            budget: self.clone(),
            client: client.clone(),
            amount,
            number: None,
        }
    }

    /// As [`Budget::take`], on a thread that may block, for some time.
    ///
    /// # Errors
    /// If there was no room in this time.
    pub fn take_within(
        &self,
        client: &Client,
        amount: u64,
        patience: Duration,
    ) -> Result<Lease, Full> {
        let until = Instant::now() + patience;
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut taking = pin!(self.take(client, amount));
        loop {
            if let Poll::Ready(taken) = taking.as_mut().poll(&mut Context::from_waker(&waker)) {
                return taken;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Full);
            }
            std::thread::park_timeout(left);
        }
    }

    /// Whether somebody waits for what this client holds.
    pub fn wanted_from(&self, client: &Client) -> bool {
        let state = lock(&self.state);
        let of_client = |waiter: &Waiter| !waiter.granted && waiter.client == *client;
        state.queue.iter().any(of_client) || state.is_waited_for(&self.shares, client)
    }

    /// How much is held, for all.
    pub fn held(&self) -> u64 {
        lock(&self.state).held
    }
}

impl Lease {
    /// Takes more at once, or nothing.
    ///
    /// # Errors
    /// If there is no room.
    pub fn grow(&mut self, more: u64) -> Result<(), Full> {
        let mut state = lock(&self.budget.state);
        self.budget.grant(&mut state, &self.client, more)?;
        self.amount += more;
        Ok(())
    }

    /// Gives a part back.
    pub fn shrink(&mut self, less: u64) {
        let less = less.min(self.amount);
        self.amount -= less;
        self.give_back(less);
    }

    /// How much it is.
    pub fn amount(&self) -> u64 {
        self.amount
    }

    fn give_back(&self, amount: u64) {
        if amount > 0 {
            let mut state = lock(&self.budget.state);
            state.take_back(&self.client, amount);
            state.serve(&self.budget.shares);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.give_back(self.amount);
    }
}
