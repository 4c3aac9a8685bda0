//! The workspace's own rules, held as tests.

mod layers;
