//! Which events run the repository's own code.

/// Events whose code is the repository's own: nobody from outside chooses what runs.
pub const TRUSTED_EVENTS: &[&str] = &[
    "create",
    "merge_group",
    "push",
    "release",
    "repository_dispatch",
    "schedule",
    "workflow_dispatch",
];

/// Whether an event's code is the repository's own, whoever caused it. One that is not known is not. A
/// `pull_request` is not either: whose code it runs depends on where its branch is.
pub fn is_trusted_event(name: &str) -> bool {
    TRUSTED_EVENTS.contains(&name)
}
