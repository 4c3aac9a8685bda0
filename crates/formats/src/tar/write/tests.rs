use super::*;
use proptest::prelude::*;

fn entry(path: &[u8], kind: EntryKind) -> Entry {
    Entry {
        path: path.to_vec(),
        kind,
        mode: 0o555,
        uid: 0,
        gid: 0,
        mtime: 1,
    }
}

fn written(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::new();
    header(entry, &mut out).unwrap();
    assert_eq!(out.len() % BLOCK_BYTES, 0);
    out
}

/// A block's bytes from its fields, padded with NULs: what the standard says,
/// written out by hand.
fn golden(fields: &[(usize, &[u8])]) -> Vec<u8> {
    let mut block = vec![0; BLOCK_BYTES];
    for (at, bytes) in fields {
        block[*at..*at + bytes.len()].copy_from_slice(bytes);
    }
    block
}

#[test]
fn a_regular_file_is_one_ustar_block() {
    let file = entry(b"nix/store/x/bin/hello", EntryKind::Regular { size: 5 });
    assert_eq!(
        written(&file),
        golden(&[
            (0, b"nix/store/x/bin/hello"),
            (
                100,
                b"0000555\x000000000\x000000000\x0000000000005\x0000000000001\x00"
            ),
            (148, b"013201\x00 "),
            (156, b"0"),
            (257, b"ustar\x0000"),
            (329, b"0000000\x000000000\x00"),
        ])
    );
}

#[test]
fn a_long_name_has_a_pax_header_before_it() {
    let path = [b'a'; 101];
    let blocks = written(&entry(&path, EntryKind::Directory));
    assert_eq!(blocks.len(), 3 * BLOCK_BYTES);
    let record = [b"112 path=".as_slice(), &path, b"/\n"].concat();
    let size = b"0000644\x000000000\x000000000\x0000000000160\x0000000000000\x00";
    assert_eq!(
        blocks[..BLOCK_BYTES],
        golden(&[
            (0, b"././@PaxHeader"),
            (100, size),
            (148, &blocks[148..156]),
            (156, b"x"),
            (257, b"ustar\x0000"),
            (329, b"0000000\x000000000\x00"),
        ])
    );
    assert_eq!(
        blocks[BLOCK_BYTES..2 * BLOCK_BYTES],
        golden(&[(0, &record)])
    );
    assert_eq!(blocks[2 * BLOCK_BYTES..][..100], [b'a'; 100]);
    assert_eq!(blocks[2 * BLOCK_BYTES + 156], b'5');
}

#[test]
fn names_up_to_256_bytes_split_where_a_slash_allows() {
    let path = [vec![b'p'; 155], vec![b'n'; 100]].join(&b'/');
    let block = written(&entry(&path, EntryKind::Regular { size: 0 }));
    assert_eq!(block.len(), BLOCK_BYTES);
    assert_eq!(block[..100], [b'n'; 100]);
    assert_eq!(block[345..500], [b'p'; 155]);
    // A directory's slash counts, and an empty rest is no name.
    let directory = written(&entry(&path, EntryKind::Directory));
    assert_eq!(directory.len(), 3 * BLOCK_BYTES);
    let wide = [vec![b'p'; 156], vec![b'n'; 10]].join(&b'/');
    assert_eq!(
        written(&entry(&wide, EntryKind::Regular { size: 0 })).len(),
        3 * BLOCK_BYTES
    );
}

#[test]
fn records_are_sorted_by_key() {
    let mut file = entry(&[b'p'; 200], EntryKind::Regular { size: 8 << 30 });
    file.uid = 0o10_000_000;
    file.gid = u64::MAX;
    file.mtime = 1 << 33;
    let blocks = written(&file);
    let records = super::block::text(&blocks[BLOCK_BYTES..]);
    let keys: Vec<_> = std::str::from_utf8(records)
        .unwrap()
        .lines()
        .map(|line| line.split([' ', '=']).nth(1).unwrap())
        .collect();
    assert_eq!(keys, ["gid", "mtime", "path", "size", "uid"]);
    // One less of each fits its field.
    file.path.truncate(100);
    file.kind = EntryKind::Regular {
        size: (8 << 30) - 1,
    };
    (file.uid, file.gid, file.mtime) = (0o7_777_777, 0o7_777_777, (1 << 33) - 1);
    assert_eq!(written(&file).len(), BLOCK_BYTES);
}

#[test]
fn symlinks_are_0777_and_long_targets_records() {
    let mut link = entry(
        b"l",
        EntryKind::Symlink {
            target: vec![b't'; 100],
        },
    );
    link.mode = 0o600;
    let block = written(&link);
    assert_eq!(block.len(), BLOCK_BYTES);
    assert_eq!(block[100..108], *b"0000777\0");
    assert_eq!(block[156], b'2');
    link.kind = EntryKind::Symlink {
        target: vec![b't'; 101],
    };
    assert!(written(&link)[BLOCK_BYTES..].starts_with(b"115 linkpath=ttt"));
}

#[test]
fn what_cannot_stand_in_a_tar_is_refused() {
    let long = vec![b'a'; NAME_BYTES_MAX];
    for path in [
        &b""[..],
        b"/a",
        b"a/",
        b"a//b",
        b".",
        b"./a",
        b"a/..",
        b"a/../b",
        b"a\0b",
        &long,
    ] {
        let mut out = Vec::new();
        assert!(header(&entry(path, EntryKind::Directory), &mut out).is_err());
        let target = path.to_vec();
        assert!(header(&entry(b"a", EntryKind::Hardlink { target }), &mut out).is_err());
        assert!(out.is_empty(), "an error leaves nothing behind");
    }
    for target in [&b""[..], b"a\0b"] {
        let target = target.to_vec();
        assert!(header(&entry(b"a", EntryKind::Symlink { target }), &mut Vec::new()).is_err());
    }
}

proptest! {
    #[test]
    fn names_are_kept_as_the_bytes_they_are(path in prop::collection::vec(1u8.., 1..400)) {
        let file = entry(&path, EntryKind::Regular { size: 0 });
        let mut out = Vec::new();
        if header(&file, &mut out).is_ok() {
            let mut seen = Vec::new();
            crate::tar::Parser::new().push(&out, &mut |event| {
                if let crate::tar::Event::Entry(entry) = event {
                    seen.push(*entry);
                }
            }).unwrap();
            prop_assert_eq!(seen, [file]);
        }
    }
}
