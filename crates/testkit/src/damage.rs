//! Damage to stores: what disks, crashes and people do to them, made on purpose.

#![allow(clippy::unwrap_used)] // for tests only, which have nothing to go on with

use firn_chunks::pack::frame_length;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// All pack files of a data folder, in order of their paths.
pub fn packs(data: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![data.join("packs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|end| end == "pack") => found.push(path),
                false => {}
            }
        }
    }
    found.sort();
    found
}

/// Where the frames of a pack lie: (offset, length) of each that holds a chunk.
pub fn frames(pack: &Path) -> Vec<(u64, u64)> {
    let bytes = fs::read(pack).unwrap();
    let mut found = Vec::new();
    let mut offset = 0;
    while let Ok(length) = frame_length(&bytes[offset..]) {
        // Header and trailer are skippable frames.
        if bytes[offset..].starts_with(&[0x28, 0xB5, 0x2F, 0xFD]) {
            found.push((offset as u64, length));
        }
        offset += length as usize;
        if offset == bytes.len() {
            break;
        }
    }
    found
}

/// Flips one bit of a file.
pub fn flip_bit(path: &Path, offset: u64) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 4], offset).unwrap();
}

/// Flips one bit in each of the first `count` frames of a store, each time at another place of the frame. Says in
/// how many.
pub fn flip_bits(data: &Path, count: usize) -> usize {
    let mut flipped = 0;
    for pack in packs(data) {
        for (offset, length) in frames(&pack) {
            if flipped == count {
                return flipped;
            }
            flip_bit(&pack, offset + (flipped as u64 * 7919) % length);
            flipped += 1;
        }
    }
    flipped
}

/// Cuts a file to a length.
pub fn truncate(path: &Path, length: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(length).unwrap();
}

/// Cuts a file to half of its length.
pub fn halve(path: &Path) {
    let length = File::open(path).unwrap().metadata().unwrap().len();
    truncate(path, length / 2);
}
