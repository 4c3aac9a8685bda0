//! Tars in zstd, as the Actions client's programs write them: taken in decoded, and given back whole.

use crate::support::{Fixture, noise};
use firn_chunks::Format;
use firn_formats::Sha256;
use firn_formats::nix::nar::Writer;
use firn_formats::tar::{BLOCK_BYTES, Entry, EntryKind, TRAILER_BYTES, header, padding};
use firn_services::zstd_tar::{NotATar, take_in};
use firn_store::{BlobInfo, Representation, Session};
use proptest::prelude::*;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

fn session(fixture: &Fixture) -> Session {
    let store = &fixture.services.store;
    store.session_open(&fixture.cache().row).unwrap()
}

fn taken_in(fixture: &Fixture, mut body: &[u8]) -> Result<BlobInfo, NotATar> {
    take_in(&fixture.services.store, &session(fixture), &mut body).unwrap()
}

fn read(fixture: &Fixture, blob: &BlobInfo, representation: Representation) -> Vec<u8> {
    let store = &fixture.services.store;
    let mut reader = store.read(blob.id, representation, None).unwrap();
    let mut out = Vec::new();
    while let Some(block) = reader.next_block().unwrap() {
        out.extend_from_slice(&block);
    }
    out
}

/// A shell line's standard output, `input` being what it reads.
fn shell(line: &str, at: &Path, input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("sh")
        .args(["-ec", line])
        .current_dir(at)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{line}");
    output.stdout
}

/// Everything that GNU tar writes in its own way.
fn odd_tree(at: &Path) {
    let long = "a".repeat(120);
    let deep = at.join(format!("{long}/{long}/{long}"));
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("ü".repeat(90)), noise("deep", 70_000)).unwrap();
    for (name, size) in [
        ("empty", 0),
        ("block", 512),
        ("small", 3000),
        ("large", 900_000),
    ] {
        std::fs::write(at.join(name), noise(name, size)).unwrap();
    }
    std::fs::write(at.join("zeros"), vec![0; 2_000_000]).unwrap();
    std::fs::hard_link(at.join("large"), at.join("linked")).unwrap();
    std::os::unix::fs::symlink("/nowhere/".repeat(30), at.join("symlink")).unwrap();
    shell("mkfifo pipe; touch -d 1960-01-01 small", at, &[]);
}

#[test]
fn what_the_clients_programs_write_comes_back_equal() {
    let (fixture, folder) = (Fixture::new(), tempfile::tempdir().unwrap());
    odd_tree(folder.path());
    let tar = shell("tar --posix -cf - -P -C . .", folder.path(), &[]);
    for program in [
        "zstdmt",
        "zstd -T0 --long=27",
        "zstd -T2 --adapt -B500K",
        "zstd -19 --no-check",
        "split -b 700000 --filter='zstd -c; printf \"\\120\\052\\115\\030\\003\\0\\0\\0abc\"' -",
    ] {
        let body = shell(program, folder.path(), &tar);
        let blob = taken_in(&fixture, &body).unwrap();
        assert_eq!(blob.identity_sha256, Sha256::of(&tar), "{program}");
        let served = read(&fixture, &blob, Representation::Zstd);
        assert_eq!(served.len() as u64, blob.zstd_length);
        let back = shell("zstd -dc", folder.path(), &served);
        assert!(back == tar, "{program}: another tar came back");
    }
    // They are one: whoever compressed it how.
    assert_eq!(fixture.services.store.stats().unwrap().blobs, 1);
}

#[test]
fn what_is_not_a_whole_tar_in_zstd_leaves_nothing() {
    let (fixture, folder) = (Fixture::new(), tempfile::tempdir().unwrap());
    std::fs::write(folder.path().join("file"), noise("file", 300_000)).unwrap();
    let run = |line: &str| shell(line, folder.path(), &[]);
    shell("truncate -s 1M file", folder.path(), &[]);
    let whole = run("tar --posix -cf - file | zstd -c");
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    for (what, body) in [
        ("empty", Vec::new()),
        ("a plain tar", run("tar -cf - file")),
        ("a gzip", run("tar -czf - file")),
        ("no tar", run("zstd -c file")),
        ("nothing in zstd", run("zstd -c < /dev/null")),
        ("a sparse tar", run("tar -S --posix -cf - file | zstd -c")),
        (
            "an old sparse tar",
            run("tar -S --format=gnu -cf - file | zstd -c"),
        ),
        (
            "a cut tar",
            run("tar -cf - file | head -c 500000 | zstd -c"),
        ),
        (
            "too large a window",
            run("tar -cf - file | zstd -c --long=30"),
        ),
        ("a cut stream", whole[..whole.len() - 1].to_vec()),
        ("bytes behind", [&whole[..], b"tail"].concat()),
        ("damage", damaged),
    ] {
        let result = taken_in(&fixture, &body);
        assert!(result.is_err(), "{what}: {result:?}");
    }
    assert_eq!(fixture.services.store.stats().unwrap().blobs, 0);
    taken_in(&fixture, &whole).unwrap();
}

#[test]
fn a_file_in_a_nar_and_in_a_tar_is_stored_once() {
    let (fixture, folder) = (Fixture::new(), tempfile::tempdir().unwrap());
    let content = noise("shared", 3_000_000);
    let mut nar = Vec::new();
    let mut writer = Writer::new(&mut nar);
    writer.file_begin(&mut nar, true, content.len() as u64);
    nar.extend_from_slice(&content);
    writer.file_end(&mut nar, content.len() as u64);
    let store = &fixture.services.store;
    let mut ingest = store.ingest(&session(&fixture), Format::Nar);
    ingest.write(&nar).unwrap();
    ingest.finish().unwrap();
    let before = store.stats().unwrap();

    std::fs::write(folder.path().join("program"), &content).unwrap();
    let body = shell("tar --posix -cf - program | zstdmt", folder.path(), &[]);
    let blob = taken_in(&fixture, &body).unwrap();
    let after = store.stats().unwrap();
    let added = after.chunk_stored_bytes - before.chunk_stored_bytes;
    assert!(blob.zstd_length > 2_900_000 && added < 2_000, "{added}");
    assert!(after.chunks - before.chunks <= 2, "headers and the end");
}

/// A folder like a Nix store: files of 100 bytes to some 400 kB, each half noise, with the names of other
/// paths in them. `changed` of its paths, and with them what names them, are of `revision`.
fn store_folder(at: &Path, revision: u32, changed: usize) {
    const PATHS: usize = 60;
    let name = |path: usize| {
        let revision = if path % PATHS < changed { revision } else { 0 };
        let hash = Sha256::of(format!("{path} {revision}").as_bytes()).base32();
        format!("{}-path-{path}", &hash[..32])
    };
    for path in 0..PATHS {
        let folder = at.join("store").join(name(path));
        std::fs::create_dir_all(&folder).unwrap();
        for file in 0..24usize {
            // Evenly many of each power of two.
            let size = 100usize << (file % 12);
            let seed = match path < changed {
                true => format!("{path} {file} {revision}"),
                false => format!("{path} {file}"),
            };
            let mut content = noise(&seed, size / 2);
            content.resize(size, b'.');
            let reference = format!("/nix/store/{}/lib", name((path + file) % PATHS));
            let room = content.len().min(reference.len());
            let middle = content.len() / 2 - room / 2;
            content[middle..middle + room].copy_from_slice(&reference.as_bytes()[..room]);
            std::fs::write(folder.join(format!("file-{file}")), &content).unwrap();
        }
    }
}

/// The times of all files are new, too: a job that has unpacked the first folder packs the second.
#[test]
fn a_store_of_which_a_twentieth_changed_costs_a_tenth_of_the_first_at_most() {
    let fixture = Fixture::new();
    let mut stored = vec![0];
    let mut sent = Vec::new();
    for revision in 0..3 {
        let folder = tempfile::tempdir().unwrap();
        store_folder(folder.path(), revision, 3);
        let body = shell(
            "tar --posix -cf - -P -C . store | zstdmt",
            folder.path(),
            &[],
        );
        let blob = taken_in(&fixture, &body).unwrap();
        sent.push((body.len(), blob.zstd_length));
        stored.push(fixture.services.store.stats().unwrap().chunk_stored_bytes);
    }
    let added: Vec<u64> = stored.windows(2).map(|pair| pair[1] - pair[0]).collect();
    eprintln!("sent, served: {sent:?}; stored: {added:?}");
    assert!(added[1] * 10 <= added[0], "{added:?}");
    assert!(added[2] * 10 <= added[0], "{added:?}");
    let (sent, served) = sent[0];
    assert!(
        served < sent as u64 * 11 / 10,
        "frames cost {served} of {sent}"
    );
}

fn small_tar(files: &[(String, usize, u8)], tail: usize) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, size, fill) in files {
        let entry = Entry {
            path: name.clone().into_bytes(),
            kind: EntryKind::Regular { size: *size as u64 },
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: 1,
        };
        header(&entry, &mut tar).unwrap();
        tar.extend((0..*size).map(|at| fill.wrapping_add((at / 7) as u8)));
        tar.resize(tar.len() + padding(*size as u64), 0);
    }
    tar.resize(tar.len() + TRAILER_BYTES + tail * BLOCK_BYTES / 3, 0);
    tar
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_tar_in_any_frames_comes_back_equal(
        files in prop::collection::vec(("[a-z]{1,150}", 0..40_000usize, any::<u8>()), 0..12),
        tail in 0..60usize,
        frame in 1..50_000usize,
    ) {
        let fixture = Fixture::new();
        let tar = small_tar(&files, tail);
        let body: Vec<u8> = tar
            .chunks(frame.max(tar.len() / 50))
            .flat_map(|part| zstd::stream::encode_all(part, 1).unwrap())
            .collect();
        let blob = taken_in(&fixture, &body).unwrap();
        prop_assert!(read(&fixture, &blob, Representation::Identity) == tar);
        let served = read(&fixture, &blob, Representation::Zstd);
        prop_assert!(zstd::stream::decode_all(served.as_slice()).unwrap() == tar);
    }

    #[test]
    fn a_damaged_body_gives_the_bytes_that_zstd_gives_or_none(
        at in 0..5000usize, flip in 1u8.., cut in 0..5000usize,
    ) {
        let fixture = Fixture::new();
        let tar = small_tar(&[("a".into(), 9000, 3), ("b".into(), 100, 4), ("c".into(), 5000, 5)], 2);
        let mut body = zstd::stream::encode_all(tar.as_slice(), 1).unwrap();
        let at = at % body.len();
        body[at] ^= flip;
        body.truncate(body.len().min(body.len() / 2 + cut));
        if let Ok(blob) = taken_in(&fixture, &body) {
            let expected = zstd::stream::decode_all(body.as_slice()).unwrap();
            prop_assert!(read(&fixture, &blob, Representation::Identity) == expected);
        }
    }
}
