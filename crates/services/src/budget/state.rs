//! Who holds how much, and who waits.

use super::{Client, Shares};
use std::collections::{HashMap, VecDeque};
use std::task::Waker;

#[derive(Default)]
pub(super) struct State {
    pub(super) held: u64,
    pub(super) of_class: [u64; 3],
    pub(super) of_client: HashMap<Client, u64>,
    pub(super) queue: VecDeque<Waiter>,
    pub(super) next: u64,
}

pub(super) struct Waiter {
    pub(super) number: u64,
    pub(super) client: Client,
    pub(super) amount: u64,
    /// Absent once it got what it wants.
    pub(super) waker: Option<Waker>,
    pub(super) granted: bool,
}

impl State {
    pub(super) fn has_share(&self, shares: &Shares, client: &Client, amount: u64) -> bool {
        let held = self.of_client.get(client).copied().unwrap_or(0);
        held + amount <= shares.of(client.class()).each
    }

    pub(super) fn has_room(&self, shares: &Shares, client: &Client, amount: u64) -> bool {
        let class = client.class();
        self.of_class[class as usize] + amount <= shares.of(class).all
    }

    /// Whether somebody waits for what this client may have: for its class's part, or for what all have. Who lacks only
    /// something of its own, or of a class of its own, is passed.
    pub(super) fn is_waited_for(&self, shares: &Shares, client: &Client) -> bool {
        self.queue.iter().any(|waiter| {
            let (other, amount) = (&waiter.client, waiter.amount);
            !waiter.granted
                && self.has_share(shares, other, amount)
                && (other.class() == client.class() || self.has_room(shares, other, amount))
        })
    }

    pub(super) fn give(&mut self, client: &Client, amount: u64) {
        self.held += amount;
        self.of_class[client.class() as usize] += amount;
        match self.of_client.get_mut(client) {
            Some(held) => *held += amount,
            None => drop(self.of_client.insert(client.clone(), amount)),
        }
    }

    pub(super) fn take_back(&mut self, client: &Client, amount: u64) {
        self.held = self.held.saturating_sub(amount);
        let class = &mut self.of_class[client.class() as usize];
        *class = class.saturating_sub(amount);
        if let Some(held) = self.of_client.get_mut(client) {
            *held = held.saturating_sub(amount);
            if *held == 0 {
                self.of_client.remove(client);
            }
        }
    }

    /// Gives to those who wait, in their order. Who lacks only room in its share or class lets others pass.
    pub(super) fn serve(&mut self, shares: &Shares) {
        let mut full = [false; 3];
        let mut woken = Vec::new();
        for index in 0..self.queue.len() {
            let (client, amount) = match self.queue.get(index) {
                Some(waiter) if !waiter.granted => (waiter.client.clone(), waiter.amount),
                Some(_) => continue,
                None => break,
            };
            let class = client.class() as usize;
            if full[class] || !self.has_share(shares, &client, amount) {
                continue;
            }
            if !self.has_room(shares, &client, amount) {
                full[class] = true;
                continue;
            }
            if self.held + amount > shares.total {
                break;
            }
            self.give(&client, amount);
            if let Some(waiter) = self.queue.get_mut(index) {
                waiter.granted = true;
                woken.extend(waiter.waker.take());
            }
        }
        for waker in woken {
            waker.wake();
        }
    }
}
