//! Pushing against a server that speaks the protocol, verifies every frame, and fails on demand.

// Helpers of tests are tests, but clippy exempts only the functions marked as such.
#![allow(clippy::expect_used)]

mod push;
mod scripted_server;
