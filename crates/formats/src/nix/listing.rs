//! `.ls`: the JSON listing of a NAR, version 1, as Nix writes it.

use std::collections::BTreeMap;

use super::nar::{EntryKind, Event};

/// Longest listing read, in bytes.
pub const LISTING_BYTES_MAX: usize = 256 << 20;

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

/// Why bytes are not a listing.
#[derive(Debug, thiserror::Error)]
pub enum ListingError {
    /// More than [`LISTING_BYTES_MAX`] bytes.
    #[error("the listing has more than {LISTING_BYTES_MAX} bytes")]
    TooLong,
    /// Another version than 1.
    #[error("listing version {0} is not known")]
    Version(u32),
    /// Not JSON, or of another shape.
    #[error("malformed listing")]
    Json(#[from] serde_json::Error),
}

impl Listing {
    /// Parses version 1.
    pub fn parse(bytes: &[u8]) -> Result<Self, ListingError> {
        if bytes.len() > LISTING_BYTES_MAX {
            return Err(ListingError::TooLong);
        }
        let listing: Self = serde_json::from_slice(bytes)?;
        match listing.version {
            1 => Ok(listing),
            version => Err(ListingError::Version(version)),
        }
    }

    /// The JSON text, as Nix writes it.
    pub fn to_json(&self) -> Result<Vec<u8>, ListingError> {
        Ok(serde_json::to_vec(self)?)
    }
}

/// Builds a listing from the events of [`super::nar::Parser`].
#[derive(Debug, Default)]
pub struct ListingBuilder {
    /// The open directories, each with its own name.
    open: Vec<(String, BTreeMap<String, Node>)>,
    root: Option<Node>,
    /// A name or target was not UTF-8.
    not_text: bool,
}

impl ListingBuilder {
    /// Takes an event.
    pub fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Structure(_) | Event::Content(_) | Event::ContentEnd => {}
            Event::DirectoryEnd => {
                if let Some((name, entries)) = self.open.pop() {
                    self.add(name, Node::Directory { entries });
                }
            }
            Event::Entry { path, kind } => {
                let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
                let name = self.text(name);
                self.entry(name, *kind);
            }
        }
    }

    fn entry(&mut self, name: String, kind: EntryKind<'_>) {
        let node = match kind {
            EntryKind::Directory => return self.open.push((name, BTreeMap::new())),
            EntryKind::Regular {
                executable,
                size,
                offset,
            } => Node::Regular {
                size,
                executable,
                nar_offset: Some(offset),
            },
            EntryKind::Symlink { target } => Node::Symlink {
                target: self.text(target),
            },
        };
        self.add(name, node);
    }

    fn add(&mut self, name: String, node: Node) {
        match self.open.last_mut() {
            Some((_, entries)) => {
                entries.insert(name, node);
            }
            None => self.root = Some(node),
        }
    }

    fn text(&mut self, bytes: &[u8]) -> String {
        match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => {
                self.not_text = true;
                String::new()
            }
        }
    }

    /// The listing; `None` if the NAR had no root or names that JSON cannot hold.
    pub fn finish(self) -> Option<Listing> {
        if self.not_text || !self.open.is_empty() {
            return None;
        }
        Some(Listing {
            version: 1,
            root: self.root?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nix::nar;

    // Written by `nix copy --to file://…?write-nar-listing=true`.
    const REAL: &str = include_str!("../../tests/vectors/libhwy.ls");

    fn listing(archive: &[u8]) -> Option<Listing> {
        let mut builder = ListingBuilder::default();
        let mut parser = nar::Parser::new();
        parser
            .push(archive, &mut |event| builder.event(&event))
            .unwrap();
        parser.finish().unwrap();
        builder.finish()
    }

    #[test]
    fn writes_what_nix_wrote() {
        let listing = Listing::parse(REAL.as_bytes()).unwrap();
        assert_eq!(listing.to_json().unwrap(), REAL.as_bytes());
    }

    #[test]
    fn of_a_nar() {
        let mut out = Vec::new();
        let mut writer = nar::Writer::new(&mut out);
        writer.directory_begin(&mut out);
        writer.entry_begin(&mut out, b"bin");
        writer.directory_begin(&mut out);
        writer.entry_begin(&mut out, b"tool");
        writer.file_begin(&mut out, true, 3);
        let offset = out.len();
        out.extend_from_slice(b"#!x");
        writer.file_end(&mut out, 3);
        writer.entry_end(&mut out);
        writer.directory_end(&mut out);
        writer.entry_end(&mut out);
        writer.entry_begin(&mut out, b"empty");
        writer.directory_begin(&mut out);
        writer.directory_end(&mut out);
        writer.entry_end(&mut out);
        writer.entry_begin(&mut out, b"link");
        writer.symlink(&mut out, b"bin/tool");
        writer.entry_end(&mut out);
        writer.directory_end(&mut out);
        let expected = format!(
            r#"{{"version":1,"root":{{"type":"directory","entries":{{"bin":{{"type":"directory","entries":{{"tool":{{"type":"regular","size":3,"executable":true,"narOffset":{offset}}}}}}},"empty":{{"type":"directory","entries":{{}}}},"link":{{"type":"symlink","target":"bin/tool"}}}}}}}}"#
        );
        let listing = listing(&out).unwrap();
        assert_eq!(
            String::from_utf8(listing.to_json().unwrap()).unwrap(),
            expected
        );
        assert_eq!(Listing::parse(expected.as_bytes()).unwrap(), listing);
    }

    #[test]
    fn the_deepest_nar_has_a_listing_that_is_read_again() {
        let mut out = Vec::new();
        let mut writer = nar::Writer::new(&mut out);
        writer.directory_begin(&mut out);
        // serde_json stops at 128 levels, and a directory has two.
        for _ in 1..60 {
            writer.entry_begin(&mut out, b"d");
            writer.directory_begin(&mut out);
        }
        for _ in 1..60 {
            writer.directory_end(&mut out);
            writer.entry_end(&mut out);
        }
        writer.directory_end(&mut out);
        let listing = listing(&out).unwrap();
        let json = listing.to_json().unwrap();
        assert_eq!(Listing::parse(&json).unwrap(), listing);
    }

    #[test]
    fn names_that_are_no_text_have_no_listing() {
        for (name, target) in [(&b"\xff"[..], &b"t"[..]), (b"n", b"\xff")] {
            let mut out = Vec::new();
            let mut writer = nar::Writer::new(&mut out);
            writer.directory_begin(&mut out);
            writer.entry_begin(&mut out, name);
            writer.symlink(&mut out, target);
            writer.entry_end(&mut out);
            writer.directory_end(&mut out);
            assert_eq!(listing(&out), None);
        }
        assert_eq!(ListingBuilder::default().finish(), None);
    }

    #[test]
    fn refuses_other_versions_and_shapes() {
        let other = REAL.replacen(r#""version":1"#, r#""version":2"#, 1);
        assert!(matches!(
            Listing::parse(other.as_bytes()),
            Err(ListingError::Version(2))
        ));
        for text in ["", "{}", "[]", r#"{"version":1,"root":{"type":"fifo"}}"#] {
            assert!(matches!(
                Listing::parse(text.as_bytes()),
                Err(ListingError::Json(_))
            ));
        }
        let deep = r#"{"version":1,"root":"#.to_owned()
            + &r#"{"type":"directory","entries":{"d":"#.repeat(100_000);
        assert!(Listing::parse(deep.as_bytes()).is_err());
    }
}
