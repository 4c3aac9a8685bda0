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

/// Writes a listing from the events of [`super::nar::Parser`] as they come, and holds no more than what was not taken
/// yet. The text is that of [`Listing::to_json`], since the names of a NAR come in order.
#[derive(Debug, Default)]
pub struct ListingWriter {
    out: Vec<u8>,
    /// The open directories: whether each has an entry.
    open: Vec<bool>,
    begun: bool,
    /// A name or target was not UTF-8.
    not_text: bool,
}

impl ListingWriter {
    /// Takes an event.
    pub fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Structure(_) | Event::Content(_) | Event::ContentEnd => {}
            Event::DirectoryEnd => {
                self.open.pop();
                self.out.extend_from_slice(b"}}");
            }
            Event::Entry { path, kind } => {
                let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
                self.entry(name, *kind);
            }
        }
    }

    fn entry(&mut self, name: &[u8], kind: EntryKind<'_>) {
        match self.open.last_mut() {
            Some(has_entries) => {
                if std::mem::replace(has_entries, true) {
                    self.out.push(b',');
                }
                self.text(name);
                self.out.push(b':');
            }
            None => self.out.extend_from_slice(b"{\"version\":1,\"root\":"),
        }
        self.begun = true;
        match kind {
            EntryKind::Directory => {
                self.out
                    .extend_from_slice(b"{\"type\":\"directory\",\"entries\":{");
                self.open.push(false);
            }
            EntryKind::Regular {
                executable,
                size,
                offset,
            } => {
                let executable = match executable {
                    true => ",\"executable\":true",
                    false => "",
                };
                let text = format!(
                    "{{\"type\":\"regular\",\"size\":{size}{executable},\"narOffset\":{offset}}}"
                );
                self.out.extend_from_slice(text.as_bytes());
            }
            EntryKind::Symlink { target } => {
                self.out
                    .extend_from_slice(b"{\"type\":\"symlink\",\"target\":");
                self.text(target);
                self.out.push(b'}');
            }
        }
    }

    fn text(&mut self, bytes: &[u8]) {
        let written =
            std::str::from_utf8(bytes).map(|text| serde_json::to_writer(&mut self.out, text));
        self.not_text |= !matches!(written, Ok(Ok(())));
    }

    /// What was written since the last time.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Whether there is no listing of this NAR: JSON cannot hold a name or a target of it.
    pub fn is_impossible(&self) -> bool {
        self.not_text
    }

    /// The rest; `None` if the NAR had no root or names that JSON cannot hold.
    pub fn finish(mut self) -> Option<Vec<u8>> {
        if self.not_text || !self.begun || !self.open.is_empty() {
            return None;
        }
        self.out.push(b'}');
        Some(self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nix::nar;

    // Written by `nix copy --to file://…?write-nar-listing=true`.
    const REAL: &str = include_str!("../../tests/vectors/libhwy.ls");

    /// Byte for byte, and nothing of it stays.
    fn listing(archive: &[u8]) -> Option<Listing> {
        let (mut writer, mut text) = (ListingWriter::default(), Vec::new());
        let mut parser = nar::Parser::new();
        for byte in archive {
            parser
                .push(&[*byte], &mut |event| writer.event(&event))
                .unwrap();
            text.extend(writer.take());
        }
        parser.finish().unwrap();
        text.extend(writer.finish()?);
        let listing = Listing::parse(&text).unwrap();
        assert_eq!(listing.to_json().unwrap(), text);
        Some(listing)
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
        assert_eq!(ListingWriter::default().finish(), None);
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
