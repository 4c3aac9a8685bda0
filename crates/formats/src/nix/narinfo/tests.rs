use proptest::prelude::*;

use super::*;

// Written by `nix copy --to file://…`.
const REAL: &str = include_str!("../../../tests/vectors/libhwy.narinfo");
const NO_REFERENCES: &str = include_str!("../../../tests/vectors/gcc-base.narinfo");

/// The real text with the line of `key` replaced by `line` (which ends itself).
fn with(key: &str, line: &str) -> String {
    let prefix = format!("{key}:");
    let keep = |old: &str| match old.starts_with(&prefix) {
        true => line.to_owned(),
        false => old.to_owned(),
    };
    REAL.split_inclusive('\n').map(keep).collect()
}

#[test]
fn reads_and_writes_what_nix_wrote() {
    for text in [REAL, NO_REFERENCES] {
        assert_eq!(NarInfo::parse(text).unwrap().to_string(), text);
    }
    let info = NarInfo::parse(REAL).unwrap();
    assert_eq!(info.nar_size, 1_666_032);
    assert_eq!(info.compression, Compression::Zstd);
    assert_eq!(info.references.len(), 4);
    assert_eq!(info.deriver.unwrap().name(), "libhwy1-1.0.3-3+deb12u1.drv");
}

#[test]
fn reads_one_of_another_order_and_with_unknown_keys() {
    let mut lines: Vec<_> = REAL.split_inclusive('\n').collect();
    lines.reverse();
    lines.insert(2, "System: x86_64-linux\n");
    let info = NarInfo::parse(&lines.concat()).unwrap();
    assert_eq!(info.to_string(), REAL);
}

#[test]
fn what_may_be_missing() {
    let info = NarInfo::parse(&with("Compression", "")).unwrap();
    assert_eq!(info.compression, Compression::Bzip2);
    assert_eq!(
        NarInfo::parse(&with("FileHash", "")).unwrap().file_hash,
        None
    );
    assert_eq!(
        NarInfo::parse(&with("FileSize", "")).unwrap().file_size,
        None
    );
    let info = NarInfo::parse(&with("Deriver", "Deriver: unknown-deriver\n")).unwrap();
    assert_eq!(info.deriver, None);
    for line in ["", "References: \n"] {
        assert!(
            NarInfo::parse(&with("References", line))
                .unwrap()
                .references
                .is_empty()
        );
    }
    for key in ["StorePath", "URL", "NarHash", "NarSize"] {
        let error = NarInfo::parse(&with(key, "")).unwrap_err();
        assert_eq!((error.line, error.what), (0, format!("{key} is missing")));
    }
}

#[test]
fn repeated_keys_are_refused_but_not_signatures() {
    for line in REAL.split_inclusive('\n') {
        let twice = NarInfo::parse(&format!("{REAL}{line}"));
        assert_eq!(twice.is_ok(), line.starts_with("Sig:"), "{line}");
    }
    assert!(NarInfo::parse(&format!("{REAL}CA: a\nCA: b\n")).is_err());
}

#[test]
fn refuses_malformed_lines() {
    for (key, line) in [
        ("References", "References:\n"),
        ("References", "References: ../../etc\n"),
        ("URL", "URL:nar/x.nar\n"),
        ("URL", "URL: \n"),
        ("URL", "URL: a\tb\n"),
        ("URL", "URL: a\u{85}b\n"),
        ("URL", "URL: a\r\n"),
        ("NarSize", "NarSize: 0\n"),
        ("NarSize", "NarSize: +1\n"),
        ("NarSize", "NarSize: -1\n"),
        ("NarSize", "NarSize: 18446744073709551616\n"),
        ("NarSize", "NarSize: 1 \n"),
        (
            "NarHash",
            "NarHash: sha1:143xibwh31h9bvxzalr0sjvbbvpa6ffs\n",
        ),
        ("FileHash", "FileHash: sha256:x\n"),
        ("Compression", "Compression: lzip\n"),
        ("Deriver", "Deriver: \n"),
        ("Deriver", "Deriver: /nix/store/x\n"),
        ("Sig", "Sig: nothing\n"),
        ("Sig", "\n"),
        ("Sig", "no colon\n"),
        ("Sig", "Sig: k:AA=="),
        (
            "StorePath",
            "StorePath: 082ajfyrw58i3c4bnxz9z3zcf5c91qmb-libhwy1\n",
        ),
    ] {
        assert!(NarInfo::parse(&with(key, line)).is_err(), "{line:?}");
    }
    assert!(NarInfo::parse("").is_err());
    assert!(NarInfo::parse("\n").is_err());
    assert!(NarInfo::parse(REAL.trim_end()).is_err());
    let long = format!("{REAL}X: {}\n", "x".repeat(NARINFO_BYTES_MAX));
    assert_eq!(NarInfo::parse(&long).unwrap_err().what, "it is too long");
    let error = NarInfo::parse(&with("FileSize", "FileSize: many\n")).unwrap_err();
    assert_eq!(error.line, 5);
}

#[test]
fn fingerprint_sorts_references() {
    let mut info = NarInfo::parse(REAL).unwrap();
    let expected = info.fingerprint();
    assert!(expected.starts_with("1;/nix/store/082ajfyrw58i3c4bnxz9z3zcf5c91qmb-"));
    info.references.reverse();
    info.references.push(info.references[0].clone());
    assert_eq!(info.fingerprint(), expected);
    assert_eq!(info.to_string(), REAL);
    info.references.clear();
    assert!(info.fingerprint().ends_with(";1666032;"));
}

#[test]
fn a_field_forges_no_line() {
    let mut info = NarInfo::parse(REAL).unwrap();
    info.url = "nar/x.nar\nNarSize: 1".into();
    info.ca = Some("fixed:\nSig: k:x".into());
    let again = NarInfo::parse(&info.to_string()).unwrap();
    assert_eq!(again.url, "nar/x.narNarSize: 1");
    assert_eq!(again.nar_size, info.nar_size);
}

#[test]
fn compression_names_and_endings() {
    for (compression, name, ending) in Compression::ALL {
        assert_eq!((compression.name(), compression.ending()), (name, ending));
        assert_eq!(Compression::from_name(name), Some(compression));
        let file = format!("abc.nar{ending}");
        assert_eq!(Compression::from_nar_file_name(&file), Some(compression));
    }
    for file in [
        "",
        "nar",
        "abc",
        "abc.xz",
        "abc.nar.zip",
        "abc.nar.",
        "abc.tar.xz",
    ] {
        assert_eq!(Compression::from_nar_file_name(file), None, "{file}");
    }
    assert_eq!(Compression::from_name("brotli"), None);
}

proptest! {
    #[test]
    fn never_panics(key in "[A-Z][A-Za-z]{1,10}", value in "\\PC{0,80}", at in 0usize..10) {
        let mut lines: Vec<_> = REAL.split_inclusive('\n').map(str::to_owned).collect();
        lines[at] = format!("{key}: {value}\n");
        if let Ok(info) = NarInfo::parse(&lines.concat()) {
            prop_assert_eq!(NarInfo::parse(&info.to_string()), Ok(info));
        }
    }
}
