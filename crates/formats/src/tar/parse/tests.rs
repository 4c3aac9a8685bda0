use super::*;
use crate::tar::{TRAILER_BYTES, header};
use proptest::prelude::*;

/// What a consumer sees, pieces joined.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
struct Seen {
    entries: Vec<(Entry, Vec<u8>)>,
    ends: usize,
    /// All structure and content bytes, in order.
    bytes: Vec<u8>,
}

fn parse(pieces: &[&[u8]]) -> (Seen, Result<(), TarError>) {
    let mut seen = Seen::default();
    let mut parser = Parser::new();
    let result = pieces
        .iter()
        .try_for_each(|piece| {
            parser.push(piece, &mut |event| match event {
                Event::Structure(bytes) => seen.bytes.extend_from_slice(bytes),
                Event::Entry(entry) => seen.entries.push((*entry, Vec::new())),
                Event::Content(bytes) => {
                    assert!(!bytes.is_empty());
                    seen.bytes.extend_from_slice(bytes);
                    seen.entries.last_mut().unwrap().1.extend_from_slice(bytes);
                }
                Event::ContentEnd => seen.ends += 1,
            })
        })
        .and_then(|()| parser.finish());
    (seen, result)
}

fn whole(archive: &[u8]) -> Seen {
    let (seen, result) = parse(&[archive]);
    result.unwrap();
    assert_eq!(seen.bytes, archive);
    seen
}

fn fault(archive: &[u8]) -> String {
    parse(&[archive]).1.unwrap_err().to_string()
}

fn regular(path: &[u8], size: u64) -> Entry {
    Entry {
        path: path.to_vec(),
        kind: EntryKind::Regular { size },
        mode: 0o444,
        uid: 0,
        gid: 0,
        mtime: 1,
    }
}

/// A header block of a type, a name and a size field, as other writers make them.
fn raw_header(kind: u8, name: &[u8], size: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    header(&regular(b"x", 0), &mut out).unwrap();
    let block: &mut Block = out.as_mut_slice().try_into().unwrap();
    block[..100].fill(0);
    block[..name.len()].copy_from_slice(name);
    block[block::SIZE].fill(0);
    block[block::SIZE][..size.len()].copy_from_slice(size);
    block[block::TYPE] = kind;
    block::seal(block);
    out
}

fn octal(size: usize) -> Vec<u8> {
    format!("{size:011o}").into_bytes()
}

fn padded(data: &[u8]) -> Vec<u8> {
    let mut out = data.to_vec();
    out.resize(out.len() + padding(out.len() as u64), 0);
    out
}

fn meta(kind: u8, data: &[u8]) -> Vec<u8> {
    [raw_header(kind, b"meta", &octal(data.len())), padded(data)].concat()
}

fn archive(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut out = parts.concat();
    out.resize(out.len() + TRAILER_BYTES, 0);
    out
}

#[test]
fn an_empty_archive_is_its_trailer() {
    assert_eq!(whole(&[0; TRAILER_BYTES]).entries, []);
    assert!(parse(&[]).1.is_err());
    assert!(parse(&[&[0; 512]]).1.is_err());
}

#[test]
fn bytes_after_the_end_are_structure() {
    let tail = [archive(&[]), b"anything at all".to_vec()].concat();
    assert_eq!(whole(&tail).entries, []);
}

#[test]
fn pax_local_goes_before_global_and_ends_with_its_entry() {
    let seen = whole(&archive(&[
        meta(b'g', b"9 uid=11\n9 gid=22\n20 comment=whatever\n"),
        meta(b'x', b"9 uid=33\n16 path=long/er\n"),
        raw_header(b'0', b"a", &octal(0)),
        raw_header(b'0', b"b", &octal(0)),
    ]));
    let brief: Vec<_> = seen
        .entries
        .iter()
        .map(|(entry, _)| (entry.path.as_slice(), entry.uid, entry.gid))
        .collect();
    assert_eq!(brief, [(&b"long/er"[..], 33, 22), (b"b", 11, 22)]);
    assert_eq!(seen.ends, 2);
}

#[test]
fn pax_size_is_the_size() {
    let seen = whole(&archive(&[
        meta(b'x', b"9 size=3\n"),
        raw_header(b'0', b"a", &octal(0)),
        padded(b"abc"),
        raw_header(b'0', b"b", &octal(0)),
    ]));
    assert_eq!(seen.entries[0].1, b"abc");
    assert_eq!(seen.entries[0].0.kind, EntryKind::Regular { size: 3 });
    assert_eq!(seen.entries[1].0.path, b"b");
}

#[test]
fn gnu_long_names_and_links_are_read() {
    let name = [b'n'; 300];
    let link = [b'l'; 400];
    let seen = whole(&archive(&[
        meta(b'K', &[&link[..], b"\0"].concat()),
        meta(b'L', &[&name[..], b"/\0"].concat()),
        raw_header(b'2', b"short", &octal(0)),
        raw_header(b'0', b"next", &octal(0)),
    ]));
    assert_eq!(seen.entries[0].0.path, name);
    let target = link.to_vec();
    assert_eq!(seen.entries[0].0.kind, EntryKind::Symlink { target });
    assert_eq!(seen.entries[1].0.path, b"next");
}

#[test]
fn gnu_numbers_are_read() {
    let mut size = vec![0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
    let seen = whole(&archive(&[raw_header(b'0', b"a", &size), padded(b"hello")]));
    assert_eq!(seen.entries[0].1, b"hello");
    size[0] = 0xff;
    assert!(fault(&archive(&[raw_header(b'0', b"a", &size)])).contains("size"));
    size = vec![0x80, 0, 0, 0, 0xff, 0, 0, 0, 0, 0, 0, 0];
    assert!(fault(&archive(&[raw_header(b'0', b"a", &size)])).contains("too large"));
}

#[test]
fn v7_headers_are_read() {
    let mut directory = raw_header(0, b"./old/", &octal(0));
    let mut file = raw_header(0, b"./old/file", &octal(2));
    for raw in [&mut directory, &mut file] {
        let block: &mut Block = raw.as_mut_slice().try_into().unwrap();
        block[257..].fill(0);
        block::seal(block);
    }
    let seen = whole(&archive(&[directory, file, padded(b"hi")]));
    assert_eq!(seen.entries[0].0.path, b"old");
    assert_eq!(seen.entries[0].0.kind, EntryKind::Directory);
    assert_eq!(seen.entries[1].0.path, b"old/file");
    assert_eq!(seen.entries[1].1, b"hi");
}

#[test]
fn devices_and_strange_types_are_structure() {
    let seen = whole(&archive(&[
        raw_header(b'3', b"dev/null", &octal(0)),
        raw_header(b'V', b"label", &octal(0)),
        raw_header(b'Z', b"vendor", &octal(3)),
        padded(b"abc"),
        raw_header(b'7', b"contiguous", &octal(1)),
        padded(b"c"),
    ]));
    assert_eq!(seen.entries.len(), 1);
    assert_eq!(seen.entries[0].0.path, b"contiguous");
}

#[test]
fn links_have_no_data_whatever_their_size() {
    let seen = whole(&archive(&[
        raw_header(b'1', b"a", &octal(700)),
        raw_header(b'5', b"d/", &octal(700)),
    ]));
    assert_eq!(seen.entries.len(), 2);
    assert_eq!(seen.ends, 0);
}

#[test]
fn paths_are_relative_without_slashes_at_their_ends() {
    for (name, path) in [
        (&b"./"[..], &b""[..]),
        (b".", b""),
        (b"/etc/", b"etc"),
        (b".//./a//", b"a"),
        (b".hidden", b".hidden"),
        (b"../up", b"../up"),
    ] {
        let seen = whole(&archive(&[raw_header(b'5', name, &octal(0))]));
        assert_eq!(seen.entries[0].0.path, path);
    }
}

#[test]
fn faults_are_named() {
    let mut flipped = archive(&[raw_header(b'0', b"a", &octal(0))]);
    flipped[3] ^= 1;
    assert!(fault(&flipped).contains("at byte 0: wrong checksum"));
    assert!(fault(&archive(&[raw_header(b'S', b"a", &octal(0))])).contains("sparse"));
    assert!(fault(&archive(&[meta(b'x', b"22 GNU.sparse.major=1\n")])).contains("sparse"));
    assert!(fault(&archive(&[raw_header(b'M', b"a", &octal(0))])).contains("multi-volume"));
    assert!(fault(&archive(&[meta(b'x', b"9 path")])).contains("PAX"));
    let large = raw_header(b'x', b"a", &octal(PAX_BYTES_MAX + 1));
    assert!(fault(&large).contains("too large"));
    let large = raw_header(b'L', b"a", &octal(NAME_BYTES_MAX + 2));
    assert!(fault(&large).contains("too large"));
    let alone = [vec![0; 512], raw_header(b'0', b"a", &octal(0))].concat();
    assert!(fault(&alone).contains("at byte 512: one zero block"));
    let cut = raw_header(b'0', b"a", &octal(9));
    assert!(fault(&cut).contains("at byte 512: the archive ends too early"));
}

#[test]
fn an_error_is_repeated() {
    let mut parser = Parser::new();
    let error = parser.push(&[1; 512], &mut |_| ()).unwrap_err();
    assert_eq!(parser.push(&[0; 1024], &mut |_| ()), Err(error.clone()));
    assert_eq!(parser.finish(), Err(error));
}

fn entries() -> impl Strategy<Value = Vec<(Entry, Vec<u8>)>> {
    let path = prop_oneof![
        r"[a-z]{1,9}(/[a-zé]{1,40}){0,8}".prop_map(String::into_bytes),
        r"[a-z]{90,180}".prop_map(String::into_bytes),
    ];
    let kind = prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..1500).prop_map(Err),
        1 => Just(Ok(EntryKind::Directory)),
        1 => "[a-z/.]{1,150}".prop_map(|target| Ok(EntryKind::Symlink { target: target.into_bytes() })),
        1 => "[a-z]{1,150}".prop_map(|target| Ok(EntryKind::Hardlink { target: target.into_bytes() })),
    ];
    let id = prop_oneof![Just(0u64), any::<u64>()];
    let entry = (path, kind, 0..0o10000u32, id.clone(), id, any::<u64>()).prop_map(
        |(path, kind, mode, uid, gid, mtime)| {
            let (kind, content) = match kind {
                Ok(kind) => (kind, Vec::new()),
                Err(content) => {
                    let size = content.len() as u64;
                    (EntryKind::Regular { size }, content)
                }
            };
            let mode = match kind {
                EntryKind::Symlink { .. } => 0o777,
                _ => mode,
            };
            let entry = Entry {
                path,
                kind,
                mode,
                uid,
                gid,
                mtime,
            };
            (entry, content)
        },
    );
    prop::collection::vec(entry, 0..8)
}

fn build(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (entry, content) in entries {
        header(entry, &mut out).unwrap();
        out.extend_from_slice(&padded(content));
    }
    archive(&[out])
}

/// `bytes` cut at the given places, taken modulo its length.
fn split<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.sort_unstable();
    let mut pieces = Vec::new();
    let mut from = 0;
    for cut in cuts {
        pieces.push(&bytes[from..cut]);
        from = cut;
    }
    pieces.push(&bytes[from..]);
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read_over_any_split(
        entries in entries(),
        cuts in prop::collection::vec(any::<usize>(), 0..40),
    ) {
        let archive = build(&entries);
        let (seen, result) = parse(&split(&archive, &cuts));
        prop_assert_eq!(result, Ok(()));
        prop_assert_eq!(&seen.bytes, &archive);
        prop_assert_eq!(seen.entries, entries);
    }

    #[test]
    fn single_bytes_read_as_the_whole_does(entries in entries()) {
        let archive = build(&entries);
        let bytes: Vec<_> = archive.chunks(1).collect();
        prop_assert_eq!(parse(&bytes), parse(&[&archive]));
    }

    #[test]
    fn damage_never_panics_and_splits_agree(
        entries in entries(),
        damage in prop::collection::vec((any::<usize>(), any::<u8>()), 1..6),
        length in any::<usize>(),
        cut in any::<usize>(),
    ) {
        let mut archive = build(&entries);
        for (at, byte) in damage {
            let at = at % archive.len();
            archive[at] = byte;
            // So that the damage reaches further than the checksum.
            let start = at - at % BLOCK_BYTES;
            let block: &mut Block = (&mut archive[start..start + BLOCK_BYTES]).try_into().unwrap();
            block::seal(block);
        }
        archive.truncate(length % (archive.len() + 1));
        let (whole, whole_result) = parse(&[&archive]);
        let (cut, cut_result) = parse(&split(&archive, &[cut]));
        prop_assert_eq!(whole_result, cut_result);
        prop_assert_eq!(whole.entries, cut.entries);
    }
}
