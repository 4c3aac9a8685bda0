//! Archives of any entries, names and links: whatever a stranger's tar holds, nothing outside the folder is made or changed.

use super::Unpacker;
use crate::{
    ci::entry::CiEntry,
    storage::registry::{name_of, tag_of},
};
use firn_formats::tar;
use std::path::Path;

/// How many are tried.
const ARCHIVES: u64 = 3000;

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Takes up to `count` bytes from the front.
fn take<'a>(rest: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, after) = rest.split_at(count.min(rest.len()));
    *rest = after;
    taken
}

fn byte(rest: &mut &[u8]) -> u8 {
    take(rest, 1).first().copied().unwrap_or(0)
}

/// A name of a few parts; those that try to get out are likelier than by chance.
fn name(rest: &mut &[u8]) -> Vec<u8> {
    let mut name = Vec::new();
    for _ in 0..1 + byte(rest) % 4 {
        let part: &[u8] = match byte(rest) % 8 {
            0 => b"..",
            1 => b"/",
            2 => b"outside",
            3 => b".",
            4 | 5 => b"folder",
            _ => {
                let count = usize::from(byte(rest) % 4) + 1;
                take(rest, count)
            }
        };
        if !name.is_empty() {
            name.push(b'/');
        }
        name.extend_from_slice(part);
    }
    name
}

/// A sound header of any entry; the writer of `firn_formats` would refuse most of these.
fn header(kind: u8, path: &[u8], target: &[u8], size: usize, mode: u8) -> [u8; tar::BLOCK_BYTES] {
    let mut block = [0; tar::BLOCK_BYTES];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &path[..path.len().min(100)]);
    put(
        100,
        format!("{:07o}", 0o200 | u32::from(mode) << 4).as_bytes(),
    );
    put(108, b"0000000");
    put(116, b"0000000");
    put(124, format!("{size:011o}").as_bytes());
    put(136, format!("{mode:011o}").as_bytes());
    put(148, b"        ");
    put(156, &[kind]);
    put(157, &target[..target.len().min(100)]);
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn archive(mut rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..16 {
        if rest.is_empty() {
            break;
        }
        let path = name(&mut rest);
        let mut content: &[u8] = &[];
        let (kind, target) = match byte(&mut rest) % 4 {
            0 => (b'5', Vec::new()),
            1 => (b'2', name(&mut rest)),
            2 => (b'1', name(&mut rest)),
            _ => {
                let count = usize::from(byte(&mut rest));
                content = take(&mut rest, count);
                (b'0', Vec::new())
            }
        };
        out.extend_from_slice(&header(
            kind,
            &path,
            &target,
            content.len(),
            byte(&mut rest),
        ));
        out.extend_from_slice(content);
        out.resize(out.len() + tar::padding(content.len() as u64), 0);
    }
    out.resize(out.len() + tar::TRAILER_BYTES, 0);
    out
}

fn unpack(target: &Path, tar: &[u8]) -> bool {
    let Ok(mut unpacker) = Unpacker::new(target) else {
        return false;
    };
    tar.chunks(700).all(|piece| unpacker.push(piece).is_ok()) && unpacker.finish().is_ok()
}

#[test]
fn no_archive_leads_out_of_its_folder() {
    let mut written = 0;
    for seed in 0..ARCHIVES {
        let place = tempfile::tempdir().expect("a folder");
        let outside = place.path().join("outside");
        std::fs::write(&outside, "mine").expect("a file");
        let mut bytes = archive(&noise(seed, 40 + seed as usize % 300));
        if seed % 5 == 0 {
            // Damage in a header, too.
            let at = seed as usize * 37 % bytes.len();
            bytes[at] ^= 1 << (seed % 8);
        }
        written += u64::from(unpack(&place.path().join("folder"), &bytes));
        assert_eq!(
            std::fs::read(&outside).expect("it is there"),
            b"mine",
            "{seed}"
        );
        for entry in std::fs::read_dir(place.path()).expect("a folder") {
            let name = entry.expect("an entry").file_name();
            assert!(name == "folder" || name == "outside", "{seed}: {name:?}");
        }
    }
    assert!(written > ARCHIVES / 100, "only {written} were sound");
}

/// What a store says of a CI key, and what a registry lists, may be anybody's.
#[test]
fn entries_and_tags_of_strangers_are_read_or_refused() {
    let entry = CiEntry {
        paths: vec!["00c89v0sz1j42g5sg6mffiwplzccay6p".to_owned()],
        roots: vec!["00c89v0sz1j42g5sg6mffiwplzccay6p-é".to_owned()],
        ..CiEntry::new()
    };
    let text = entry.encode().expect("json");
    let tag = tag_of(&format!("{:016x}-{}", 7, "0a".repeat(32)));
    assert!(name_of(&tag).is_some());
    let (mut read, mut named) = (0, 0);
    for seed in 0..20_000 {
        let noise = noise(seed, 4);
        let change = |text: &[u8]| {
            let mut text = text.to_vec();
            let at = usize::from(noise[0]) * 256 + usize::from(noise[1]);
            let at = at % text.len();
            match noise[2] % 3 {
                0 => text[at] = noise[3],
                1 => text.truncate(at),
                _ => text.insert(at, noise[3]),
            }
            text
        };
        let changed = change(&text);
        if let Some(entry) = CiEntry::parse(&changed) {
            read += 1;
            let again = entry.encode().expect("what was read can be written");
            assert_eq!(CiEntry::parse(&again).as_ref(), Some(&entry));
            assert!(CiEntry::paths_of(&changed).is_some());
        }
        if let Ok(changed) = String::from_utf8(change(tag.as_bytes()))
            && let Some(name) = name_of(&changed)
        {
            named += 1;
            assert_eq!(tag_of(name), changed);
            assert!(
                changed.is_ascii() && changed.len() == tag.len(),
                "{changed}"
            );
        }
    }
    assert!(read > 100 && named > 100, "{read} {named}");
}
