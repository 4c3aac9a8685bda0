//! Real clients and the real binary, driven as programs.
//!
//! A rig that lacks its tool, or the rights that it needs, panics and names `make setup`: a test
//! that needs it fails then, and is never skipped. Everything a rig writes lies in a folder of its
//! own that goes away with it; every process it starts is ended by its own id, and by the kernel
//! when the test dies.
#![allow(
    clippy::panic,
    clippy::expect_used,
    reason = "a rig that cannot do its work fails its test"
)]

pub mod agent;
pub mod closure;
pub mod conformance;
pub mod containerd;
pub mod cut;
pub mod docker;
pub mod gh;
pub mod ghcr;
pub mod job;
pub mod machine;
pub mod nix;
pub mod oci_tools;
pub mod podman;
pub mod program;
pub mod proxy;
pub mod registry;
pub mod s3;
pub mod sbom;
pub mod serve;
pub mod skopeo;
pub mod tls;
pub mod trixie;

/// Which Debian a client comes from: its age decides what it can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// Debian 12, the machine itself: Nix 2.8, skopeo 1.9, Docker 20.10, podman 4.3.
    Bookworm,
    /// Debian 13, in the root that `make setup` makes: Nix 2.26, skopeo 1.18, Docker 26.
    Trixie,
}

impl Release {
    /// Both, older first.
    pub const ALL: [Self; 2] = [Self::Bookworm, Self::Trixie];

    /// `program` of this release, with nothing but its name set.
    pub(crate) fn command(self, program: &str) -> std::process::Command {
        match self {
            Self::Bookworm => program::command(program),
            Self::Trixie => trixie::command(program),
        }
    }
}
