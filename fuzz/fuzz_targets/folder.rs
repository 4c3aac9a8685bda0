#![no_main]
//! A folder's tar from a stranger: whatever is in it, nothing outside the folder is made or changed. Half of the inputs
//! are archives, the others entries with any names, kinds and targets in sound headers, of which mutations make few.

use firn_client::ci::folder::Unpacker;
use firn_formats::tar;
use libfuzzer_sys::fuzz_target;
use std::path::Path;

/// Takes up to `count` bytes from the front.
fn take<'a>(rest: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, after) = rest.split_at(count.min(rest.len()));
    *rest = after;
    taken
}

fn byte(rest: &mut &[u8]) -> u8 {
    take(rest, 1).first().copied().unwrap_or(0)
}

/// Names that try to get out are likelier than by chance.
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
    put(100, format!("{:07o}", 0o200 | u32::from(mode) << 4).as_bytes());
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
        out.extend_from_slice(&header(kind, &path, &target, content.len(), byte(&mut rest)));
        out.extend_from_slice(content);
        out.resize(out.len() + tar::padding(content.len() as u64), 0);
    }
    out.resize(out.len() + tar::TRAILER_BYTES, 0);
    out
}

fn unpack(target: &Path, tar: &[u8]) {
    let Ok(mut unpacker) = Unpacker::new(target) else {
        return;
    };
    for piece in tar.chunks(700) {
        if unpacker.push(piece).is_err() {
            return;
        }
    }
    let _ = unpacker.finish();
}

fuzz_target!(|input: &[u8]| {
    let place = tempfile::tempdir().expect("a folder");
    let outside = place.path().join("outside");
    std::fs::write(&outside, "mine").expect("a file");
    let tar = match input.split_first() {
        Some((0..128, rest)) => archive(rest),
        _ => input.to_vec(),
    };
    unpack(&place.path().join("folder"), &tar);
    assert_eq!(std::fs::read(&outside).expect("still there"), b"mine");
    let mut names: Vec<_> = std::fs::read_dir(place.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    names.sort();
    assert!(names == ["folder", "outside"] || names == ["outside"], "{names:?}");
});
