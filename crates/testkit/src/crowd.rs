//! A thousand hostile connections that do all at once what each could stop a server with, and how others fare.
#![allow(
    clippy::expect_used,
    reason = "a scenario that cannot be played fails its test"
)]

use crate::rigs::serve::Server;
use crate::slow::{head, p99, request};
use firn_formats::Sha256;
use firn_formats::admin::{Right, TokenCreate};
use firn_formats::nix::nar::Writer;
use firn_formats::push::{Begin, BlobKind, Proposal, encode_proposals};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Files that the test and its server may have open.
const FILES_MIN: u64 = 4096;
/// Files of the NAR whose listing nobody pushed.
const LISTED_FILES: usize = 250_000;
/// Layers of the manifest that many tags name.
const LAYERS: usize = 7000;
const TAGS: usize = 300;
/// Chunks of a proposal: 4 MiB.
const CHUNKS: usize = 115_000;
/// Sessions of hostile pushers, and what each proposes.
const SESSIONS: usize = 3;
const PROPOSALS: usize = 30;

/// How others fared.
#[derive(Debug)]
pub struct Outcome {
    /// The slowest percent of small requests before, and beside the crowd.
    pub base_p99: Duration,
    /// The same, beside the crowd.
    pub beside_p99: Duration,
    /// The slowest percent of `/healthz` beside the crowd.
    pub health_p99: Duration,
    /// The slowest manifest or blob of another, beside the crowd.
    pub push_max: Duration,
    /// Manifests and blobs that came in beside it.
    pub pushes: usize,
    /// What the crowd did, to tell that it did it.
    pub acts: usize,
}

/// Stops the crowd when others have been measured, or could not be.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the crowd needs to know.
struct Scene<'a> {
    server: &'a Server,
    /// May create, in `main`, and push.
    hostile: String,
    /// An upload that many go on with at once.
    upload: String,
    /// A path whose listing was not made.
    listing: String,
    stop: &'a AtomicBool,
    acts: AtomicUsize,
}

/// Lets this process, and those that it starts, open enough files.
fn many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < FILES_MIN) {
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).expect("a limit of open files that can be raised");
    }
    let now = getrlimit(Resource::Nofile).current;
    assert!(
        now.is_none_or(|now| now >= FILES_MIN),
        "the test needs {FILES_MIN} open files and may have {now:?}"
    );
}

/// A server that such a crowd may come to from one address.
pub fn server(binary: &str) -> Server {
    many_files();
    let config = r#"{"limits": {"connections_per_address_max": 3000}}"#;
    Server::start_with(binary, config, "info")
}

fn post(server: &Server, token: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let head = head("POST", path, token) + "Content-Type: application/json\r\n";
    let (status, answer) = exchange(server.address(), &head, body);
    assert!((200..300).contains(&status), "{path}: {status}");
    answer
}

/// One request; the status and the body.
fn exchange(address: &str, head: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let answer = request(address, head, body);
    let status = answer
        .get(9..12)
        .and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let body = end.map_or(Vec::new(), |end| answer[end + 4..].to_vec());
    (status.unwrap_or(0), body)
}

/// A NAR of very many empty files.
fn listed_nar() -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer.directory_begin(&mut out);
    for file in 0..LISTED_FILES {
        writer.entry_begin(&mut out, format!("{file:07}").as_bytes());
        writer.file_begin(&mut out, false, 0);
        writer.file_end(&mut out, 0);
        writer.entry_end(&mut out);
    }
    writer.directory_end(&mut out);
    out
}

/// Puts a path whose listing is long; its `.ls`.
fn put_listed(server: &Server, token: &str) -> String {
    let nar = listed_nar();
    let hash = Sha256::of(&nar).base32();
    let file = zstd::bulk::compress(&nar, 1).expect("a small NAR");
    let name = format!("nar/{}.nar.zst", Sha256::of(&file).base32());
    let narinfo = format!(
        "StorePath: /nix/store/{}-listed\nURL: {name}\nCompression: zstd\nNarHash: sha256:{hash}\n\
         NarSize: {}\nReferences: \n",
        &hash[..32],
        nar.len()
    );
    let narinfo_path = format!("/main/{}.narinfo", &hash[..32]);
    for (path, body) in [
        (format!("/main/{name}"), file),
        (narinfo_path, narinfo.into_bytes()),
    ] {
        let (status, said) = exchange(server.address(), &head("PUT", &path, token), &body);
        assert_eq!(status, 201, "{path}: {}", String::from_utf8_lossy(&said));
    }
    format!("/main/{}.ls", &hash[..32])
}

/// Puts one large manifest under very many tags.
fn put_images(server: &Server, token: &str) {
    let digest = Sha256::of(b"layer").hex();
    let path = format!("/v2/main/app/blobs/uploads/?digest=sha256:{digest}");
    post(server, token, &path, b"layer");
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let layer = format!(
        r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","size":5,"digest":"sha256:{digest}"}}"#
    );
    let layers = vec![layer.as_str(); LAYERS].join(",");
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{media_type}","config":{layer},"layers":[{layers}]}}"#
    );
    let digest = Sha256::of(manifest.as_bytes()).hex();
    for first in (0..TAGS).step_by(100) {
        let tags: Vec<String> = (first..first + 100)
            .map(|tag| format!("tag=t{tag}"))
            .collect();
        let path = format!("/v2/main/app/manifests/sha256:{digest}?{}", tags.join("&"));
        let head = head("PUT", &path, token) + &format!("Content-Type: {media_type}\r\n");
        let (status, said) = exchange(server.address(), &head, manifest.as_bytes());
        assert_eq!(status, 201, "{}", String::from_utf8_lossy(&said));
    }
}

/// A token that another tenant has.
fn token(server: &Server, cache: &str, allow: &[Right]) -> String {
    let request = TokenCreate {
        caches: vec![cache.to_owned()],
        allow: allow.to_vec(),
        expires_in: None,
        note: None,
        actions: None,
    };
    let body = serde_json::to_vec(&request).expect("JSON");
    let made = post(server, &server.token(), "/api/v1/tokens", &body);
    let made: serde_json::Value = serde_json::from_slice(&made).expect("a token");
    made["token"].as_str().expect("a token").to_owned()
}

impl<'a> Scene<'a> {
    fn new(server: &'a Server, stop: &'a AtomicBool) -> Self {
        let admin = server.token();
        post(server, &admin, "/api/v1/caches", br#"{"name":"other"}"#);
        let hostile = token(server, "main", &[Right::Push, Right::Create]);
        let listing = put_listed(server, &admin);
        put_images(server, &admin);
        let begin = head("POST", "/v2/main/app/blobs/uploads/", &hostile);
        let begun = request(server.address(), &begin, b"");
        let begun = String::from_utf8_lossy(&begun).into_owned();
        let location = begun.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("location")
                .then(|| value.to_owned())
        });
        Self {
            server,
            hostile,
            upload: location.expect("an upload"),
            listing,
            stop,
            acts: AtomicUsize::new(0),
        }
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// What a connection of the crowd begins with: a tenth each waits for an upload and stays idle over HTTP/2, three
    /// send the body of a list that anybody may send, the others ask for what is long and do not take it.
    fn opening(&self, index: usize) -> Vec<u8> {
        let patch = head("PATCH", &self.upload, &self.hostile);
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: firn\r\n\r\n").into_bytes();
        let slow = |head: String, announced: usize, sent: usize| {
            let mut all = format!("{head}Content-Length: {announced}\r\n\r\n").into_bytes();
            all.extend(vec![b' '; sent]);
            all
        };
        match index % 10 {
            0 if index == 0 => slow(patch, 50_000_000, 100_000),
            0 => slow(patch, 1, 1),
            1..=3 => {
                let head = "POST /api/v1/status HTTP/1.1\r\nHost: firn\r\n".to_owned();
                slow(head, 8 << 20, 70_000)
            }
            4..=6 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(),
            7 => get(&self.listing),
            _ => get("/api/v1/images?cache=main"),
        }
    }

    /// Keeps so many connections open; each that the server ends comes again.
    fn crowd(&self, count: usize) {
        let open = |index| {
            let mut stream = TcpStream::connect(self.server.address()).ok()?;
            stream.set_nonblocking(true).ok()?;
            // What does not fit now is not sent: these are slow.
            let sent = stream.write(&self.opening(index));
            sent.is_ok().then_some(stream)
        };
        let mut all: Vec<_> = (0..count).map(open).collect();
        while self.goes_on() {
            for (index, slot) in all.iter_mut().enumerate() {
                let step = slot.as_mut().map(|stream| match index % 10 {
                    0..=3 if index == 0 || index % 10 != 0 => stream.write(b" "),
                    _ => stream.read(&mut [0; 64]),
                });
                let goes_on = match step {
                    Some(Ok(count)) => count > 0,
                    Some(Err(error)) => error.kind() == std::io::ErrorKind::WouldBlock,
                    None => false,
                };
                if !goes_on {
                    self.acts.fetch_add(1, Ordering::Relaxed);
                    *slot = open(index);
                }
                if index % 20 == 0 {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
    }

    /// Small bodies that say they need a window of a gigabyte.
    fn windows(&self) {
        let mut body = vec![0x11, 0x1e];
        body.extend([0; 155]);
        while self.goes_on() {
            let name = Sha256::of(&body).base32();
            let path = format!("/main/nar/{name}.nar.br");
            let head = head("PUT", &path, &self.hostile);
            let (status, _) = exchange(self.server.address(), &head, &body);
            assert!(matches!(status, 400 | 503), "{status}");
            self.acts.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Proposes far more than is ever sent.
    fn proposals(&self, seed: usize) {
        let begin = Begin {
            paths: vec![Sha256::of(&seed.to_le_bytes()).base32()[..32].to_owned()],
            ..Begin::default()
        };
        let body = serde_json::to_vec(&begin).expect("JSON");
        let path = "/api/v1/push/begin?cache=main";
        let begun = post(self.server, &self.hostile, path, &body);
        let begun: serde_json::Value = serde_json::from_slice(&begun).expect("a session");
        let session = begun["session"].as_str().expect("a session");
        let path = format!("/api/v1/push/{session}/blobs");
        for number in 0..PROPOSALS {
            let chunk = |index: usize| {
                let mut id = [0; 32];
                id[..8].copy_from_slice(
                    &(index as u64)
                        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                        .to_le_bytes(),
                );
                id[8..16].copy_from_slice(&((seed * 1000 + number) as u64).to_le_bytes());
                (id, 60_000)
            };
            let proposal = Proposal {
                kind: BlobKind::Nar,
                chunks: (0..CHUNKS).map(chunk).collect(),
            };
            let body = encode_proposals(&[proposal]);
            let head = head("POST", &path, &self.hostile);
            let (status, _) = exchange(self.server.address(), &head, &body);
            // In the end there is no room for more.
            assert!(matches!(status, 200 | 413 | 503 | 404), "{status}");
            self.acts.fetch_add(1, Ordering::Relaxed);
            if !self.goes_on() {
                return;
            }
        }
    }
}

/// Small requests, one after the other, until `seconds` are over or as long as `goes_on`; how long each took.
fn measure(address: &str, head: &str, goes_on: &dyn Fn() -> bool) -> Vec<Duration> {
    let mut times = Vec::new();
    while goes_on() {
        let one = Instant::now();
        assert_eq!(exchange(address, head, b"").0, 200);
        times.push(one.elapsed());
        std::thread::sleep(Duration::from_millis(2));
    }
    times.sort_unstable();
    times
}

/// Pushes a large manifest and a small blob into another cache, again and again; how long each took.
fn pushes(address: &str, token: &str, goes_on: &dyn Fn() -> bool) -> Vec<Duration> {
    let media_type = "application/vnd.oci.image.index.v1+json";
    let padding = " ".repeat(100_000);
    let manifest =
        format!(r#"{{"schemaVersion":2,"manifests":[],"mediaType":"{media_type}"{padding}}}"#);
    let digest = Sha256::of(b"abcdef").hex();
    let put = head("PUT", "/v2/other/app/manifests/latest", token)
        + &format!("Content-Type: {media_type}\r\n");
    let blob = format!("/v2/other/app/blobs/uploads/?digest=sha256:{digest}");
    let blob = head("POST", &blob, token);
    let mut times = Vec::new();
    while goes_on() {
        for (head, body) in [(&put, manifest.as_bytes()), (&blob, b"abcdef")] {
            let one = Instant::now();
            assert_eq!(exchange(address, head, body).0, 201);
            times.push(one.elapsed());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    times
}

/// Measures others without, and then for `seconds` beside so many hostile connections.
pub fn run(server: &Server, connections: usize, seconds: Duration) -> Outcome {
    let stop = AtomicBool::new(false);
    let scene = Scene::new(server, &stop);
    let address = server.address();
    let theirs = token(server, "other", &[Right::Push, Right::Pull]);
    let small = head("GET", "/other/nix-cache-info", &theirs);
    let health = "GET /healthz HTTP/1.1\r\nHost: firn\r\n";
    let for_a_while = |seconds: Duration| {
        let until = Instant::now() + seconds;
        move || Instant::now() < until
    };
    // What others do all the time is in both.
    let both = |seconds: Duration| {
        std::thread::scope(|scope| {
            let pushing = scope.spawn(|| pushes(address, &theirs, &for_a_while(seconds)));
            let asking = scope.spawn(|| measure(address, health, &for_a_while(seconds)));
            let times = measure(address, &small, &for_a_while(seconds));
            let pushes = pushing.join().expect("those who push");
            (times, asking.join().expect("those who ask"), pushes)
        })
    };
    let (base, _, _) = both(Duration::from_secs(4));
    let (beside, health, pushes) = std::thread::scope(|scope| {
        scope.spawn(|| scene.crowd(connections));
        scope.spawn(|| scene.windows());
        for seed in 0..SESSIONS {
            let scene = &scene;
            scope.spawn(move || scene.proposals(seed));
        }
        let _stop = Stop(&stop);
        std::thread::sleep(Duration::from_secs(2));
        both(seconds)
    });
    Outcome {
        base_p99: p99(&base),
        beside_p99: p99(&beside),
        health_p99: p99(&health),
        push_max: pushes.iter().max().copied().unwrap_or_default(),
        pushes: pushes.len(),
        acts: scene.acts.load(Ordering::Relaxed),
    }
}
