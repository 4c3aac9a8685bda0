//! A registry as a store's backend: Debian's docker-registry, and one with the habits of GitHub's.

use firn_client::{
    credentials::Credential, http::Http, registry::Repository, storage::registry::RegistryBackend,
};
use firn_formats::{Sha256, oci::Reference};
use firn_store::{
    StoreError,
    shared::{Backend, StoredPack},
};
use firn_testkit::rigs::{
    ghcr::{Asked, Ghcr, Quirks, READER, WRITER},
    registry::Registry,
};
use firn_testkit::shared_store::Place;
use std::{fs::File, io::Write as _, sync::Arc, time::Duration};

mod docker_registry {
    //! The suite of all places.
    use super::*;

    fn new_place() -> Place {
        let registry = Registry::start();
        Box::new(move || Arc::new(backend(registry.address(), None)))
    }

    firn_testkit::shared_store_suite!(new_place);
}

mod like_githubs {
    //! The suite of all places, where now and then something fails.
    use super::*;

    fn new_place() -> Place {
        let ghcr = Ghcr::with(Quirks {
            busy_every: 397,
            drop_every: 97,
            ..Quirks::default()
        });
        Box::new(move || Arc::new(backend(ghcr.address(), Some(WRITER))))
    }

    firn_testkit::shared_store_suite!(new_place);
}

fn backend(address: &str, credentials: Option<&str>) -> RegistryBackend {
    let reference = Reference::parse(&format!("{address}/acme/app")).expect("a reference");
    let credential = credentials.map(|text| Credential::parse_basic(text).expect("credentials"));
    let repository =
        Repository::of_reference(Http::new(4).expect("http"), &reference, credential).expect("one");
    RegistryBackend::new(repository, &format!("oci://{address}/acme/app")).expect("a backend")
}

/// Bytes that do not repeat.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

fn file(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(content).expect("write");
    file
}

fn put(backend: &RegistryBackend, content: &[u8]) -> StoredPack {
    let file = file(content);
    backend
        .put_pack(&file, content.len() as u64)
        .expect("a pack")
}

fn count(asked: &[Asked], matches: impl Fn(&Asked) -> bool) -> usize {
    asked.iter().filter(|asked| matches(asked)).count()
}

/// What every registry must give: packs that are read in ranges, segments that are seen by others.
fn is_a_store(address: &str, credentials: Option<&str>) {
    let writer = backend(address, credentials);
    assert!(writer.segments().expect("none yet").is_empty());
    let content = bytes(1, 300_000);
    let pack = put(&writer, &content);
    assert_eq!(pack.name, format!("sha256:{}", Sha256::of(&content).hex()));
    let segment = bytes(2, 5000);
    let name = writer
        .publish(7, &segment, std::slice::from_ref(&pack))
        .expect("a run");
    assert!(name.starts_with("0000000000000007-"), "{name}");
    let later = writer.publish(8, b"another", &[]).expect("a run");

    let reader = backend(address, credentials);
    assert_eq!(reader.segments().expect("two"), [name.clone(), later]);
    let read = reader.segment(&name).expect("a segment");
    assert_eq!(read.as_deref(), Some(segment.as_slice()));
    for range in [0..1, 1000..1001, 70_000..170_000, 0..300_000, 5..5] {
        let part = reader.read(&pack.name, range.clone()).expect("a range");
        assert!(part == content[range.start as usize..range.end as usize]);
    }
    assert!(reader.read(&pack.name, 299_999..300_001).is_err());
    let absent = format!("{:016x}-{}", 9, "ab".repeat(32));
    assert_eq!(reader.segment(&absent).expect("an answer"), None);
    assert_eq!(reader.packs().expect("no list"), None);
}

#[test]
fn docker_registry_holds_a_store() {
    let registry = Registry::start();
    is_a_store(registry.address(), None);
}

#[test]
fn a_registry_like_githubs_holds_a_store() {
    let ghcr = Ghcr::start();
    is_a_store(ghcr.address(), Some(WRITER));
}

#[test]
fn ranges_are_cut_out_where_a_registry_sends_all() {
    let ghcr = Ghcr::with(Quirks {
        whole_blobs: true,
        ..Quirks::calm()
    });
    is_a_store(ghcr.address(), Some(WRITER));
    let whole = count(&ghcr.asked(), |asked| {
        asked.path.starts_with("storage:") && asked.status == 200
    });
    assert!(whole >= 6, "{whole} blobs were sent whole");
}

/// A part of the list of tags is not taken for all of it.
#[test]
fn d14_a_refused_later_page_of_tags_is_an_error() {
    for status in [403, 404] {
        let ghcr = Ghcr::with(Quirks {
            later_tags_status: status,
            ..Quirks::calm()
        });
        let behind = backend(ghcr.behind(), None);
        for at in 0..101 {
            behind.publish(at, &bytes(at, 20), &[]).expect("a run");
        }
        assert_eq!(behind.segments().expect("all of them").len(), 101);
        let reader = backend(ghcr.address(), Some(WRITER));
        let told = reader.segments();
        let error = told.expect_err("a part is not all");
        assert!(matches!(error, StoreError::Backend { .. }), "{error}");
    }
}

#[test]
fn a_reader_needs_few_requests_and_pull_alone() {
    let ghcr = Ghcr::with(Quirks {
        public: true,
        ..Quirks::calm()
    });
    let writer = backend(ghcr.address(), Some(WRITER));
    let pack = put(&writer, b"a pack");
    let name = writer
        .publish(1, b"a segment", std::slice::from_ref(&pack))
        .expect("a run");
    for credentials in [None, Some(READER)] {
        ghcr.asked();
        let reader = backend(ghcr.address(), credentials);
        assert_eq!(reader.segments().expect("one"), std::slice::from_ref(&name));
        assert!(reader.segment(&name).expect("a segment").is_some());
        assert_eq!(reader.read(&pack.name, 2..6).expect("a range"), b"pack");
        let asked = ghcr.asked();
        // A refusal, a token, the tags, and twice a redirect with what it leads to.
        assert_eq!(asked.len(), 7, "{asked:?}");
        assert_eq!(reader.requests(), 7);
        let scopes = count(&asked, |asked| asked.path.ends_with(":pull&service="));
        let tokens = count(&asked, |asked| asked.path.starts_with("/token?"));
        assert!(tokens == 1 && scopes <= 1, "{asked:?}");
        assert!(
            asked.iter().all(|asked| !asked.path.contains("push")),
            "{asked:?}"
        );
        let refused = reader.publish(2, b"mine", &[]).expect_err("it may not");
        assert!(matches!(refused, StoreError::Backend { .. }), "{refused:?}");
    }
    let stranger = backend(ghcr.address(), Some("octo:wrong"));
    assert!(stranger.segments().is_err());
}

#[test]
fn tokens_that_end_are_renewed_once_for_all_threads() {
    let ghcr = Ghcr::with(Quirks {
        token_life: Duration::from_millis(400),
        ..Quirks::calm()
    });
    let writer = backend(ghcr.address(), Some(WRITER));
    put(&writer, b"the first");
    ghcr.asked();
    std::thread::sleep(Duration::from_millis(600));
    std::thread::scope(|scope| {
        for seed in 0..8 {
            let writer = &writer;
            scope.spawn(move || put(writer, &bytes(seed, 1000)));
        }
    });
    let asked = ghcr.asked();
    let tokens = count(&asked, |asked| asked.path.starts_with("/token"));
    // On a slow machine the new one may end too, but never is there one for each thread.
    assert!((1..=4).contains(&tokens), "{asked:?}");
    let put = count(&asked, |asked| asked.method == "PUT" && asked.status == 201);
    assert_eq!(put, 8, "{asked:?}");
}

#[test]
fn packs_go_up_whole_and_once_however_often_the_registry_fails() {
    let ghcr = Ghcr::with(Quirks {
        drop_every: 7,
        busy_every: 29,
        ..Quirks::calm()
    });
    let writer = backend(ghcr.address(), Some(WRITER));
    let content = bytes(3, 9 << 20);
    let packs: Vec<StoredPack> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4usize)
            .map(|index| {
                let (writer, content) = (&writer, &content);
                scope.spawn(move || put(writer, &content[index << 10..]))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("it ends"))
            .collect()
    });
    writer.publish(1, b"a segment", &packs).expect("a run");
    let asked = ghcr.asked();
    assert!(count(&asked, |asked| asked.status == 0) > 0, "{asked:?}");
    assert_eq!(count(&asked, |asked| asked.method == "PATCH"), 0);
    for (index, pack) in packs.iter().enumerate() {
        let begin = writer.read(&pack.name, 0..100).expect("a range");
        assert!(begin == content[index << 10..(index << 10) + 100]);
    }
    // What is there is not sent again.
    ghcr.asked();
    assert_eq!(put(&writer, &content).name, packs[0].name);
    let again = ghcr.asked();
    assert!(again.iter().all(|asked| asked.bytes == 0), "{again:?}");
}

#[test]
fn all_pages_of_tags_are_read_and_only_ours_taken() {
    let ghcr = Ghcr::with(Quirks::calm());
    let writer = backend(ghcr.address(), Some(WRITER));
    let plain = backend(ghcr.behind(), None);
    let mut names: Vec<String> = (1..=210u64)
        .map(|at| plain.publish(at, &at.to_le_bytes(), &[]).expect("a run"))
        .collect();
    names.sort_unstable();
    ghcr.asked();
    assert_eq!(writer.segments().expect("all"), names);
    let pages = count(&ghcr.asked(), |asked| {
        asked.path.contains("/tags/list") && asked.status == 200
    });
    assert_eq!(pages, 3);
}

#[test]
fn what_cannot_be_deleted_is_said_so() {
    let ghcr = Ghcr::with(Quirks::calm());
    let writer = backend(ghcr.address(), Some(WRITER));
    let name = writer.publish(1, b"a segment", &[]).expect("a run");
    let error = writer.delete_segment(&name).expect_err("it cannot");
    assert!(matches!(error, StoreError::Undeletable(_)), "{error:?}");
    assert_eq!(writer.segments().expect("one"), [name]);

    let registry = Registry::with_deletion();
    let writer = backend(registry.address(), None);
    let first = writer.publish(1, b"a segment", &[]).expect("a run");
    let second = writer.publish(2, b"a segment", &[]).expect("a run");
    for _ in 0..2 {
        writer
            .delete_segment(&first)
            .expect("gone, or gone already");
        assert_eq!(
            writer.segments().expect("one"),
            std::slice::from_ref(&second)
        );
    }
}

#[test]
fn a_segment_of_other_bytes_is_damaged() {
    let registry = Registry::start();
    let writer = backend(registry.address(), None);
    let name = writer.publish(1, b"a segment", &[]).expect("a run");
    registry.damage_blob(&Sha256::of(b"a segment").hex());
    let error = writer.segment(&name).expect_err("it is damaged");
    assert!(matches!(error, StoreError::Damaged(_)), "{error:?}");
}
