//! Our tars read by GNU tar and by the `tar` crate, and theirs by our parser.

use firn_formats::tar::{Entry, EntryKind, Event, Parser, TRAILER_BYTES, header, padding};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

fn entry(path: &str, kind: EntryKind) -> Entry {
    Entry {
        path: path.as_bytes().to_vec(),
        kind,
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: 1,
    }
}

fn append(out: &mut Vec<u8>, path: &str, content: &[u8]) {
    let size = content.len() as u64;
    header(&entry(path, EntryKind::Regular { size }), out).unwrap();
    out.extend_from_slice(content);
    out.resize(out.len() + padding(size), 0);
}

fn long_name() -> String {
    format!("d/{}", "long".repeat(60))
}

fn long_target() -> String {
    "target/".repeat(40)
}

fn sample() -> Vec<u8> {
    let mut out = Vec::new();
    header(&entry("d", EntryKind::Directory), &mut out).unwrap();
    append(&mut out, &long_name(), b"long");
    append(&mut out, "d/grüße-雪", b"utf-8");
    append(&mut out, "d/new\nline", b"newline");
    let target = long_target().into_bytes();
    header(&entry("d/link", EntryKind::Symlink { target }), &mut out).unwrap();
    let target = long_name().into_bytes();
    header(&entry("d/hard", EntryKind::Hardlink { target }), &mut out).unwrap();
    out.resize(out.len() + TRAILER_BYTES, 0);
    out
}

/// Runs GNU tar with `archive` on its standard input; `(status, stdout, stderr)`.
fn gnu_tar(arguments: &[&str], archive: &[u8]) -> (bool, String, String) {
    let mut child = Command::new("tar")
        .args(arguments)
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("GNU tar is needed");
    // All archives here fit a pipe's buffer together with tar's own reads; tar
    // may stop reading early, which is for the caller to judge.
    let _ = child.stdin.take().unwrap().write_all(archive);
    let output = child.wait_with_output().unwrap();
    (
        output.status.success(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

fn parse(archive: &[u8]) -> Vec<(Entry, Vec<u8>)> {
    let mut seen: Vec<(Entry, Vec<u8>)> = Vec::new();
    let mut parser = Parser::new();
    for piece in archive.chunks(1000) {
        parser
            .push(piece, &mut |event| match event {
                Event::Entry(entry) => seen.push((*entry, Vec::new())),
                Event::Content(bytes) => seen.last_mut().unwrap().1.extend_from_slice(bytes),
                Event::Structure(_) | Event::ContentEnd => {}
            })
            .unwrap();
    }
    parser.finish().unwrap();
    seen
}

#[test]
fn gnu_tar_lists_what_was_written() {
    let (success, listing, complaints) =
        gnu_tar(&["-tvf", "-", "--quoting-style=escape"], &sample());
    assert!(success, "{complaints}");
    assert_eq!(complaints, "");
    let lines: Vec<_> = listing.lines().collect();
    assert_eq!(lines.len(), 6, "{listing}");
    assert!(lines[0].starts_with("drwxr-xr-x 0/0") && lines[0].ends_with("1970-01-01 00:00 d/"));
    assert!(lines[1].ends_with(&long_name()));
    assert!(lines[3].ends_with("d/new\\nline"));
    assert!(lines[4].starts_with("lrwxrwxrwx"));
    assert!(lines[4].ends_with(&format!("d/link -> {}", long_target())));
    assert!(lines[5].ends_with(&format!("d/hard link to {}", long_name())));
}

#[test]
fn gnu_tar_extracts_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_str().unwrap();
    let (success, _, complaints) = gnu_tar(&["-xf", "-", "-C", root], &sample());
    assert!(success, "{complaints}");
    let read = |path: &str| std::fs::read(folder.path().join(path)).unwrap();
    assert_eq!(read(&long_name()), b"long");
    assert_eq!(read("d/hard"), b"long");
    assert_eq!(read("d/grüße-雪"), b"utf-8");
    assert_eq!(read("d/new\nline"), b"newline");
    let target = std::fs::read_link(folder.path().join("d/link")).unwrap();
    assert_eq!(target, Path::new(&long_target()));
}

#[test]
fn gnu_tar_reads_sizes_and_owners_beyond_octal() {
    let size = 9_000_000_000;
    let mut large = entry("large", EntryKind::Regular { size });
    (large.uid, large.gid) = (4_000_000_000, 3_000_000_000);
    let mut out = Vec::new();
    header(&large, &mut out).unwrap();
    // The content is missing: tar names the entry and then complains.
    let (success, listing, _) = gnu_tar(&["-tvf", "-", "--numeric-owner"], &out);
    assert!(!success);
    assert!(
        listing.contains("4000000000/3000000000 9000000000 1970-01-01"),
        "{listing}"
    );
}

#[test]
fn the_tar_crate_reads_what_was_written() {
    let archive = sample();
    let mut archive = tar::Archive::new(archive.as_slice());
    let mut seen = Vec::new();
    for member in archive.entries().unwrap() {
        let mut member = member.unwrap();
        let mut content = String::new();
        member.read_to_string(&mut content).unwrap();
        let path = String::from_utf8(member.path_bytes().into_owned()).unwrap();
        let target = member.link_name_bytes().map(|target| target.len());
        seen.push((path, content, target));
    }
    let expected = [
        ("d/".to_owned(), "", None),
        (long_name(), "long", None),
        ("d/grüße-雪".to_owned(), "utf-8", None),
        ("d/new\nline".to_owned(), "newline", None),
        ("d/link".to_owned(), "", Some(long_target().len())),
        ("d/hard".to_owned(), "", Some(long_name().len())),
    ];
    let expected = expected.map(|(path, content, target)| (path, content.to_owned(), target));
    assert_eq!(seen, expected);
}

#[test]
fn every_format_of_gnu_tar_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (success, _, complaints) = gnu_tar(
        &["-xf", "-", "-C", folder.path().to_str().unwrap()],
        &sample(),
    );
    assert!(success, "{complaints}");
    for format in ["gnu", "posix"] {
        let output = Command::new("tar")
            .args(["--sort=name", "--format", format, "-cf", "-", "-C"])
            .arg(folder.path())
            .arg("d")
            .output()
            .expect("GNU tar is needed");
        assert!(output.status.success());
        let seen = parse(&output.stdout);
        assert_eq!(seen.len(), 6, "{format}");
        let find = |path: &str| {
            let found = seen.iter().find(|(entry, _)| entry.path == path.as_bytes());
            &found
                .unwrap_or_else(|| panic!("{format} has no {path:?}"))
                .1
        };
        assert_eq!(find("d/new\nline"), b"newline");
        assert_eq!(find("d/grüße-雪"), b"utf-8");
        let target = long_target().into_bytes();
        assert!(seen.iter().any(|(entry, _)| entry.kind
            == EntryKind::Symlink {
                target: target.clone()
            }));
    }
}

#[test]
fn small_formats_of_gnu_tar_are_read() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("d")).unwrap();
    std::fs::write(folder.path().join("d/f"), vec![7; 70_000]).unwrap();
    for format in ["v7", "oldgnu", "ustar"] {
        let output = Command::new("tar")
            .args(["--format", format, "-cf", "-", "-C"])
            .arg(folder.path())
            .arg("./d")
            .output()
            .expect("GNU tar is needed");
        assert!(output.status.success());
        let seen = parse(&output.stdout);
        assert_eq!(seen[0].0.kind, EntryKind::Directory, "{format}");
        assert_eq!(seen[1].0.path, b"d/f");
        assert_eq!(seen[1].1, vec![7; 70_000]);
    }
}
