//! Closure graph, layer planner, layer and image composer. Reads local files; no network.

pub mod archive;
pub mod base;
pub mod closure;
pub mod compose;
pub mod encode;
pub mod output;
pub mod plan;
pub mod replay;
pub mod sbom;
pub mod spec;
