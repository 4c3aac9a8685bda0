//! Archives, layers and images of small trees, judged by nix-store, tar and skopeo where those are the authority.

#![allow(clippy::unwrap_used, clippy::panic)]

mod archive;
mod base;
mod chunks;
mod documents;
mod encode;
mod keys;
mod layers;
mod output;
mod replay;
mod roots;
mod series;
mod spec;
mod support;
