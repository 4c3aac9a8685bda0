//! The folder's layout.
//!
//! ```text
//! DIR/VERSION                                   text: "firn-store 1"
//! DIR/lock                                      held (flock) by the process that has the store open
//! DIR/firn.db                                   the database, mode 0600
//! DIR/packs/<16 hex>.mark                       empty; says that the packs' place is there
//! DIR/packs/<domain>/<2 hex>/<32 hex>.pack      frames; <domain> is the name, percent-encoded
//! DIR/segments/<16 hex>-<16 hex>.seg            the index; names sort by the time of writing
//! DIR/staged/<32 hex>-<16 hex>                  parts of uploads under way; the database knows which
//! ```
//!
//! The last part of a pack's and of a segment's name is random, so that no name is used twice.

use crate::StoreError;
use crate::files::Folder;

/// The layout's version.
pub(crate) const VERSION: u32 = 1;
/// Key of the database.
pub(crate) const DATABASE: &str = "firn.db";
/// Prefix of the packs.
pub(crate) const PACKS: &str = "packs";
/// Prefix of the segments.
pub(crate) const SEGMENTS: &str = "segments";

/// How the name of the packs' mark ends.
const MARK_END: &str = ".mark";

/// Prefix of the parts of uploads under way.
pub(crate) const STAGED: &str = "staged";

/// Names the format.
pub(crate) const VERSION_FILE: &str = "VERSION";
const MAGIC: &str = "firn-store ";

/// Checks the folder's version, or writes it into a new folder.
pub(crate) fn check_version(folder: &Folder) -> Result<(), StoreError> {
    let Some(bytes) = folder.read(VERSION_FILE)? else {
        return folder.put_atomic(VERSION_FILE, format!("{MAGIC}{VERSION}\n").as_bytes());
    };
    let text = String::from_utf8_lossy(&bytes);
    match text.trim().strip_prefix(MAGIC) {
        Some(version) if version.parse() == Ok(VERSION) => Ok(()),
        found => Err(StoreError::FormatVersion {
            path: folder.path(VERSION_FILE),
            found: found.unwrap_or(text.trim()).to_owned(),
            known: VERSION,
        }),
    }
}

/// Refuses a folder that has lost its database: an empty one in its place would know nothing of what is here,
/// and a collector would take it for rubbish.
pub(crate) fn check_database(folder: &Folder) -> Result<(), StoreError> {
    let lost = folder.length(DATABASE)?.is_none()
        && !(folder.list(SEGMENTS)?.is_empty() && packs(folder)?.is_empty());
    match lost {
        true => Err(StoreError::DatabaseMissing(folder.path(DATABASE))),
        false => Ok(()),
    }
}

/// Removes what a crash left of segments that were never whole.
pub(crate) fn clear_temporary(folder: &Folder) -> Result<(), StoreError> {
    for key in folder.list(SEGMENTS)? {
        if key.ends_with(".tmp") {
            folder.delete(&key)?;
        }
    }
    Ok(())
}

/// `bytes` random bytes in hexadecimal.
pub(crate) fn random_hex(bytes: usize) -> Result<String, StoreError> {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random).map_err(|error| StoreError::Io {
        path: "random numbers".into(),
        source: std::io::Error::other(error),
    })?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Where a pack of a domain lies.
pub(crate) fn pack_key(domain: &str, pack: &str) -> String {
    let fan_out = pack.get(..2).unwrap_or("00");
    format!("{PACKS}/{}/{fan_out}/{pack}.pack", encode_name(domain))
}

/// The domain and name of the pack at a key.
pub(crate) fn parse_pack_key(key: &str) -> Option<(String, String)> {
    let mut parts = key.strip_prefix(PACKS)?.strip_prefix('/')?.split('/');
    let domain = decode_name(parts.next()?)?;
    let _fan_out = parts.next()?;
    let pack = parts.next()?.strip_suffix(".pack")?.to_owned();
    parts.next().is_none().then_some((domain, pack))
}

/// Where the mark of the packs' place lies.
pub(crate) fn mark_key(number: i64) -> String {
    format!("{PACKS}/{number:016x}{MARK_END}")
}

/// The number of a mark, by its name in the packs' folder.
pub(crate) fn parse_mark(name: &str) -> Option<i64> {
    let digits = name.strip_suffix(MARK_END)?;
    let number = u64::from_str_radix(digits, 16).ok()?.cast_signed();
    (mark_key(number) == format!("{PACKS}/{name}")).then_some(number)
}

/// The number of a new mark.
pub(crate) fn random_mark() -> Result<i64, StoreError> {
    let digits = random_hex(size_of::<i64>())?;
    Ok(u64::from_str_radix(&digits, 16).unwrap_or(0).cast_signed())
}

/// Keys of all pack files, and of what else lies among them but for marks.
pub(crate) fn packs(folder: &Folder) -> Result<Vec<String>, StoreError> {
    let mut keys = folder.list(PACKS)?;
    keys.retain(|key| {
        let name = key
            .strip_prefix(PACKS)
            .and_then(|key| key.strip_prefix('/'));
        name.and_then(parse_mark).is_none()
    });
    Ok(keys)
}

/// Where a segment lies. `at` is in microseconds and grows from segment to segment.
pub(crate) fn segment_key(at: i64, random: &str) -> String {
    format!("{SEGMENTS}/{at:016x}-{random}.seg")
}

/// Where a part of what is staged lies.
pub(crate) fn staged_key(id: &str, random: &str) -> String {
    format!("{STAGED}/{id}-{random}")
}

/// The time in a segment's name.
pub(crate) fn segment_time(key: &str) -> Option<i64> {
    let name = key.rsplit_once('/')?.1;
    i64::from_str_radix(name.get(..16)?, 16).ok()
}

/// What would be the number in a segment's name, if it is the part of a compaction.
pub(crate) fn segment_number(key: &str) -> Option<u16> {
    let name = key.rsplit_once('/')?.1;
    u16::from_str_radix(name.get(17..21)?, 16).ok()
}

/// Percent-encodes everything but lower-case letters, digits, `_` and `-`.
fn encode_name(name: &str) -> String {
    name.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

fn decode_name(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.bytes().next() {
        if first == b'%' {
            out.push(u8::from_str_radix(rest.get(1..3)?, 16).ok()?);
            rest = rest.get(3..)?;
        } else {
            out.push(first);
            rest = rest.get(1..)?;
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pack_keys_round_trip_for_any_domain_name() {
        for domain in ["public", "private:acme/web", "..", "Ä %41", ""] {
            let key = pack_key(domain, "ab12");
            assert!(!key.contains(".."), "{key}");
            assert_eq!(
                parse_pack_key(&key),
                Some((domain.to_owned(), "ab12".to_owned()))
            );
        }
        assert_eq!(parse_pack_key("packs/x/ab/cd/e.pack"), None);
        assert_eq!(parse_pack_key("packs/%4/ab/e.pack"), None);
        assert_eq!(parse_pack_key("segments/x/ab/e.pack"), None);
    }
}
