//! `.ls`: the JSON listing of a NAR, version 1, as Nix writes it.

use std::collections::BTreeMap;

/// A node of a listing.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Node {
    Directory {
        entries: BTreeMap<String, Node>,
    },
    #[serde(rename_all = "camelCase")]
    Regular {
        size: u64,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        executable: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nar_offset: Option<u64>,
    },
    Symlink {
        target: String,
    },
}

/// A listing.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Listing {
    /// Always 1.
    pub version: u32,
    /// The root.
    pub root: Node,
}

/// Builds a listing from the events of [`super::nar::Parser`].
#[derive(Debug, Default)]
pub struct ListingBuilder {}

impl ListingBuilder {
    /// Takes an event.
    pub fn event(&mut self, event: &super::nar::Event<'_>) {
        todo!("{event:?}")
    }
    /// The listing; `None` if the NAR had no root or names that JSON cannot hold.
    pub fn finish(self) -> Option<Listing> {
        todo!()
    }
}
