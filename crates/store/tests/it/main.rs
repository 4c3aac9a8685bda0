//! The store, from its public interface. Tests that hold a rule of order name it.

mod concurrency;
mod crash;
mod damage;
mod disk_full;
mod entries;
mod ingest;
mod ranges;
mod rebuild;
mod sessions;
mod support;
