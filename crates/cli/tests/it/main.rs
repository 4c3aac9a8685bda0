//! The binary as its users meet it: through `firn` itself, and through the real Nix, skopeo,
//! podman and Docker of two Debian releases. `make setup` installs what this needs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod actions_tools;
mod check;
mod ci;
mod ci_action;
mod ci_branches;
mod ci_hash_files;
mod ci_registry;
mod ci_watch;
mod clients;
mod conformance;
mod crash;
mod docs;
mod earlier;
mod firn_commands;
mod foreign_registry;
mod full_system;
mod image_base;
mod image_history;
mod image_sbom;
mod image_spec;
mod image_tools;
mod images;
mod keys;
mod limits;
mod nix_library;
mod nix_private;
mod nix_realisations;
mod nix_substitute;
mod nix_upload;
mod nix_use;
mod pull_chunks;
mod registry_clients;
mod registry_push;
mod retention;
mod secrets;
mod soak;
mod storage;
mod tls;

use firn_testkit::rigs::serve::Server;

/// A server of the binary under test, with nothing in it.
fn server() -> Server {
    Server::start(env!("CARGO_BIN_EXE_firn"))
}
