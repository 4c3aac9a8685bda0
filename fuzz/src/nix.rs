//! Nix's formats. What is accepted is written so that it reads the same.

use firn_formats::nix::derivation::Derivation;
use firn_formats::nix::listing::{Listing, ListingWriter};
use firn_formats::nix::nar::{Event, Parser};
use firn_formats::nix::realisation::RealisationName;
use firn_formats::nix::rewrap::{Encoder, Format, wrapped_length};
use firn_formats::nix::{
    CacheInfo, ContentAddress, Hash, NarInfo, PublicKey, SecretKey, Signature, StorePath,
};

fn parse_nar(archive: &[u8], piece: usize) -> Option<(usize, Option<Vec<u8>>)> {
    let mut parser = Parser::new();
    let (mut writer, mut listing) = (ListingWriter::default(), Vec::new());
    let mut reported = Vec::new();
    let mut entries = 0;
    for input in archive.chunks(piece) {
        let result = parser.push(input, &mut |event| {
            writer.event(&event);
            match event {
                Event::Structure(bytes) | Event::Content(bytes) => {
                    reported.extend_from_slice(bytes)
                }
                Event::Entry { .. } => entries += 1,
                Event::ContentEnd | Event::DirectoryEnd => {}
            }
        });
        result.ok()?;
        listing.extend(writer.take());
    }
    parser.finish().ok()?;
    assert_eq!(reported, archive);
    let end = writer.finish();
    Some((entries, end.map(|end| [listing, end].concat())))
}

/// Any bytes, in any pieces: the same verdict and listing, and every byte reported once. The first byte is
/// the size of the pieces.
pub(crate) fn nar(input: &[u8]) {
    let Some((&piece, archive)) = input.split_first() else {
        return;
    };
    let whole = parse_nar(archive, archive.len().max(1));
    assert_eq!(parse_nar(archive, usize::from(piece).max(1)), whole);
}

pub(crate) fn narinfo(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let _ = CacheInfo::parse(text);
    if let Ok(info) = NarInfo::parse(text) {
        assert_eq!(NarInfo::parse(&info.to_string()).as_ref(), Ok(&info));
        assert!(!info.fingerprint().contains('\n'));
    }
}

pub(crate) fn derivation(input: &[u8]) {
    if let Ok(derivation) = Derivation::parse(input) {
        assert_eq!(Derivation::parse(&derivation.to_aterm()), Ok(derivation));
    }
}

pub(crate) fn listing(input: &[u8]) {
    if let Ok(listing) = Listing::parse(input) {
        let json = listing.to_json().expect("a listing is JSON");
        assert_eq!(Listing::parse(&json).expect("its own JSON"), listing);
    }
}

/// Store paths, hashes, keys, signatures and names of realisations.
pub(crate) fn names(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(path) = StorePath::parse(text) {
        assert_eq!(path.absolute(), text);
    }
    if let Ok(path) = StorePath::parse_base_name(text) {
        assert_eq!(path.to_string(), text);
    }
    if let Ok(hash) = Hash::parse(text) {
        assert_eq!(Hash::parse(&hash.to_string()), Ok(hash));
    }
    if let Some(address) = ContentAddress::parse(text) {
        assert!(text.contains(address.hash.algorithm().name()));
    }
    if let Ok(signature) = Signature::parse(text) {
        assert_eq!(Signature::parse(&signature.to_string()), Ok(signature));
    }
    let names = [
        RealisationName::parse(text),
        RealisationName::parse_id(text),
    ];
    for name in names.into_iter().flatten() {
        assert_eq!(RealisationName::parse(&name.to_string()), Ok(name));
    }
    let _ = PublicKey::parse(text);
    let _ = SecretKey::parse(text);
}

/// Wrapped in pieces as in one go, as long as was said beforehand, and never more than was announced. The
/// first two bytes are format and size of the pieces.
pub(crate) fn rewrap(input: &[u8]) {
    let [format, piece, content @ ..] = input else {
        return;
    };
    let format = [Format::Xz, Format::Gzip, Format::Brotli][usize::from(format % 3)];
    let length = content.len() as u64;
    let wrap = |piece: usize| {
        let (mut encoder, mut out) = (Encoder::new(format, length), Vec::new());
        for part in content.chunks(piece) {
            encoder.push(part, &mut out).expect("as long as announced");
        }
        assert!(encoder.push(b"x", &mut out).is_err());
        encoder.finish(&mut out).expect("all of it came");
        out
    };
    let whole = wrap(content.len().max(1));
    assert_eq!(whole.len() as u64, wrapped_length(format, length));
    assert_eq!(wrap(usize::from(*piece).max(1)), whole);
    assert!(
        Encoder::new(format, length + 1)
            .finish(&mut Vec::new())
            .is_err()
    );
}
