//! Checks of the workspace's own rules; they run as tests.

fn main() {}
