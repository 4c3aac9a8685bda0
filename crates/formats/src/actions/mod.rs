//! What GitHub Actions' cache clients and servers say to each other.
//!
//! | module | what it is |
//! |---|---|
//! | `names` | repositories, scopes, keys and versions, each with its limits |
//! | `scopes` | what a token may read and write: the claim `ac` |
//! | `events` | which events run the repository's own code |
//! | `matching` | in which order an entry is looked for |
//! | `twirp`, `protobuf` | the calls of version 2 and how they are written |
//! | `rest` | those of version 1 |
//! | `azure` | the little of Azure's blob storage that uploads speak |
//! | `github` | GitHub's REST about caches, as `gh cache` speaks it |

pub mod azure;
mod events;
pub mod github;
pub mod matching;
pub mod names;
mod protobuf;
pub mod rest;
pub mod scopes;
pub mod twirp;

pub use events::{TRUSTED_EVENTS, is_trusted_event};
pub use matching::{Attempt, attempts};
pub use names::{NameError, RepositoryName, check_key, check_keys, check_scope, check_version};
pub use scopes::{Scope, Scopes};
