//! Pushing against a server that speaks the protocol, verifies every frame, and fails on demand; a store in
//! real registries.

// Helpers of tests are tests, but clippy exempts only the functions marked as such.
#![allow(clippy::expect_used, clippy::panic)]

mod fixture;
mod image_store;
mod layer_keys;
mod push;
mod registry_store;
mod scripted_server;
mod substituter;
