//! Any bytes, in any pieces: the same verdict, and every byte reported once.
#![no_main]

use firn_formats::nix::nar::{Event, Parser};
use libfuzzer_sys::fuzz_target;

fn parse(archive: &[u8], piece: usize) -> Option<usize> {
    let mut parser = Parser::new();
    let mut reported = Vec::new();
    let mut entries = 0;
    for input in archive.chunks(piece) {
        let result = parser.push(input, &mut |event| match event {
            Event::Structure(bytes) | Event::Content(bytes) => reported.extend_from_slice(bytes),
            Event::Entry { .. } => entries += 1,
            Event::ContentEnd | Event::DirectoryEnd => {}
        });
        result.ok()?;
    }
    parser.finish().ok()?;
    assert_eq!(reported, archive);
    Some(entries)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, archive) = input;
    let whole = parse(archive, archive.len().max(1));
    assert_eq!(parse(archive, usize::from(piece).max(1)), whole);
});
