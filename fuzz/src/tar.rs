//! Tars.

use firn_formats::tar::{Entry, Event, Parser};

fn parse(input: &[u8], piece: usize) -> (Vec<Entry>, Vec<u8>, bool) {
    let (mut entries, mut bytes) = (Vec::new(), Vec::new());
    let mut parser = Parser::new();
    let sound = input.chunks(piece).all(|piece| {
        parser
            .push(piece, &mut |event| match event {
                Event::Entry(entry) => entries.push(*entry),
                Event::Structure(part) | Event::Content(part) => bytes.extend_from_slice(part),
                Event::ContentEnd => {}
            })
            .is_ok()
    });
    (entries, bytes, sound && parser.finish().is_ok())
}

/// Any bytes, in pieces of any size, parse as they do in one piece; what is reported of a sound archive is
/// the archive.
pub(crate) fn tar(input: &[u8]) {
    let (entries, bytes, sound) = parse(input, input.len().max(1));
    let piece = usize::from(input.first().copied().unwrap_or(1)).max(1);
    let (split_entries, split_bytes, split_sound) = parse(input, piece);
    assert_eq!((&entries, sound), (&split_entries, split_sound));
    if sound {
        assert!(bytes == input && split_bytes == input);
    }
}
