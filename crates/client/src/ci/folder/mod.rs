//! Folders beside the store, such as `~/.cache/nix`: kept as a deterministic tar, in chunks.
//!
//! Entries are sorted bytewise, owners and the finer parts of times are left out, so that equal trees have
//! equal bytes; and what changed in a tree costs the chunks that changed. The first name of every entry is
//! the folder's own; what is restored never leaves it.

mod pack;
mod place;
mod unpack;

pub use pack::{SavedFolder, save_folder};
pub use place::{Place, places};
pub use unpack::{RestoredFolder, Unpacker, restore_folder};

#[cfg(test)]
mod tests;
