//! Pushing against a server that speaks the protocol, verifies every frame, and fails on demand.

mod push;
mod scripted_server;
