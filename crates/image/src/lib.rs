//! Closure graph, layer planner, layer and image composer. Reads local files; no network.

pub mod archive;
pub mod base;
pub mod closure;
pub mod compose;
pub mod diff;
pub mod draw;
pub mod encode;
pub mod frequency;
pub mod lint;
pub mod output;
pub mod plan;
pub mod replay;
pub mod sbom;
pub mod spec;
pub mod view;
