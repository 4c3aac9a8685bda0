//! The server from the outside: raw HTTP against one in this process.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub
)]

mod absence;
mod actions;
mod admin;
mod auth_matrix;
mod check;
mod collection;
mod connections;
mod disk_full;
mod doors;
mod hostile_pusher;
mod http;
mod images;
mod layer_keys;
mod malformed;
mod nix_door;
mod push_protocol;
mod range;
mod registry;
mod registry_collection;
mod retention;
mod samples;
mod signing;
mod tampering;
mod truncated;
