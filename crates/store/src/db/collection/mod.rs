//! What a collector asks and does; `crate::collect` says in which order.

pub(crate) mod condemn;
pub(crate) mod expire;
pub(crate) mod mark;
pub(crate) mod packs;
