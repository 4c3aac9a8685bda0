//! The store, from its public interface. Tests that hold a rule of order name it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

mod absence;
mod backup;
mod check;
mod clock;
mod collection;
mod concurrency;
mod crash;
mod damage;
mod disk_full;
mod entries;
mod failpoints;
mod ingest;
mod power;
mod quarantine;
mod ranges;
mod rebuild;
mod sessions;
mod shared;
mod staged;
mod support;
mod uploads;
mod versions;
