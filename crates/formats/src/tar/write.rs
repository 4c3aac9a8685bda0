//! The writer: ustar where an entry fits, a PAX extended header before it where not.

use super::block::{self, Block};
use super::pax::put_record;
use super::{BLOCK_BYTES, Entry, EntryKind, NAME_BYTES_MAX, TarError, padding};

/// The name of every extended header; readers that know none extract a file of it.
const PAX_NAME: &[u8] = b"././@PaxHeader";

/// Appends the header blocks (PAX records first, where needed) of `entry`.
///
/// Names are written as the bytes they are. A symlink's mode is 0777, whatever
/// `entry` says. The caller writes the content and its [`padding`].
///
/// Fails if the path (or a hard link's target) is empty, absolute, has an
/// empty, `.` or `..` component or a NUL, or if a name is longer than
/// [`NAME_BYTES_MAX`].
pub fn header(entry: &Entry, out: &mut Vec<u8>) -> Result<(), TarError> {
    check_path(&entry.path)?;
    let mut block: Block = [0; BLOCK_BYTES];
    // Filled in the order of its keys, which is the order of the records.
    let mut records = Vec::new();

    let (kind, size, target) = match &entry.kind {
        EntryKind::Directory => (b'5', 0, None),
        EntryKind::Regular { size } => (b'0', *size, None),
        EntryKind::Symlink { target } => (b'2', 0, Some(target)),
        EntryKind::Hardlink { target } => (b'1', 0, Some(target)),
    };
    let mode = match entry.kind {
        EntryKind::Symlink { .. } => 0o777,
        _ => entry.mode & 0o7777,
    };
    block[block::TYPE] = kind;
    block::put_octal(&mut block[block::MODE], u64::from(mode));
    put_number(&mut block[block::GID], &mut records, "gid", entry.gid);
    if let Some(target) = target {
        check_target(&entry.kind, target)?;
        put_target(&mut block, &mut records, target);
    }
    put_number(&mut block[block::MTIME], &mut records, "mtime", entry.mtime);
    put_path(&mut block, &mut records, entry);
    put_number(&mut block[block::SIZE], &mut records, "size", size);
    put_number(&mut block[block::UID], &mut records, "uid", entry.uid);

    if !records.is_empty() {
        out.extend_from_slice(&pax_block(records.len()));
        out.extend_from_slice(&records);
        out.resize(out.len() + padding(records.len() as u64), 0);
    }
    out.extend_from_slice(&finished(block));
    Ok(())
}

/// The header block of an extended header with `size` bytes of records.
fn pax_block(size: usize) -> Block {
    let mut block = [0; BLOCK_BYTES];
    block[..PAX_NAME.len()].copy_from_slice(PAX_NAME);
    block[block::TYPE] = b'x';
    block::put_octal(&mut block[block::MODE], 0o644);
    for zero in [block::UID, block::GID, block::MTIME] {
        block::put_octal(&mut block[zero], 0);
    }
    block::put_octal(&mut block[block::SIZE], size as u64);
    finished(block)
}

/// The block with what all blocks have in common: magic, device numbers, checksum.
fn finished(mut block: Block) -> Block {
    block[block::MAGIC].copy_from_slice(block::USTAR_MAGIC);
    block::put_octal(&mut block[block::DEVICE_MAJOR], 0);
    block::put_octal(&mut block[block::DEVICE_MINOR], 0);
    block::seal(&mut block);
    block
}

/// A number as octal, or as a record where it has too many digits (the field is then 0).
fn put_number(field: &mut [u8], records: &mut Vec<u8>, key: &str, value: u64) {
    if value <= block::octal_max(field.len()) {
        block::put_octal(field, value);
    } else {
        block::put_octal(field, 0);
        put_record(records, key, value.to_string().as_bytes());
    }
}

fn put_target(block: &mut Block, records: &mut Vec<u8>, target: &[u8]) {
    let field = &mut block[block::LINK_NAME];
    put_cut(field, target);
    if target.len() > field.len() {
        put_record(records, "linkpath", target);
    }
}

/// A directory's name ends with `/`, as every tar writes it.
fn put_path(block: &mut Block, records: &mut Vec<u8>, entry: &Entry) {
    let mut name = entry.path.clone();
    if entry.kind == EntryKind::Directory {
        name.push(b'/');
    }
    if let Some((prefix, rest)) = split_name(&name) {
        put_cut(&mut block[block::PREFIX], prefix);
        put_cut(&mut block[block::NAME], rest);
    } else {
        put_cut(&mut block[block::NAME], &name);
        put_record(records, "path", &name);
    }
}

/// The name as ustar's prefix and name, split at the first `/` that leaves
/// room for both; the prefix is empty if the name field suffices.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= block::NAME.len() {
        return Some((&[], name));
    }
    let first = name.len() - block::NAME.len() - 1;
    let last = block::PREFIX.len().min(name.len() - 2);
    (first.max(1)..=last)
        .find(|at| name[*at] == b'/')
        .map(|at| (&name[..at], &name[at + 1..]))
}

/// As much of `text` as fits; the rest of the field is zero already.
fn put_cut(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}

fn check_path(path: &[u8]) -> Result<(), TarError> {
    let sound = path.len() < NAME_BYTES_MAX
        && !path.contains(&0)
        && path
            .split(|byte| *byte == b'/')
            .all(|component| !matches!(component, b"" | b"." | b".."));
    match sound {
        true => Ok(()),
        false => Err(unsound(path)),
    }
}

fn check_target(kind: &EntryKind, target: &[u8]) -> Result<(), TarError> {
    if matches!(kind, EntryKind::Hardlink { .. }) {
        return check_path(target);
    }
    match target.is_empty() || target.contains(&0) || target.len() > NAME_BYTES_MAX {
        true => Err(unsound(target)),
        false => Ok(()),
    }
}

fn unsound(path: &[u8]) -> TarError {
    let shown = &path[..path.len().min(300)];
    TarError::Path(String::from_utf8_lossy(shown).into_owned())
}

#[cfg(test)]
mod tests;
