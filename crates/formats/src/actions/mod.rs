//! What GitHub Actions' cache clients and servers say to each other.
//!
//! | module | what it is |
//! |---|---|
//! | `names` | repositories, scopes, keys and versions, each with its limits |
//! | `scopes` | what a token may read and write: the claim `ac` |
//! | `matching` | in which order an entry is looked for |

pub mod matching;
pub mod names;
pub mod scopes;

pub use matching::{Attempt, attempts};
pub use names::{NameError, RepositoryName, check_key, check_scope, check_version};
pub use scopes::{Scope, Scopes};
