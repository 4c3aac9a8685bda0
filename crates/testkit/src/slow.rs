//! Clients that bring or take a byte a second, by the hundred, and how those beside them fare.
#![allow(
    clippy::expect_used,
    reason = "a scenario that cannot be played fails its test"
)]

use crate::noise;
use crate::rigs::serve::Server;
use firn_formats::Sha256;
use firn_formats::nix::nar::Writer;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Bytes of the NAR that the slow readers ask for: more than sockets hold.
const READ_NAR_BYTES: usize = 24 << 20;

/// Slow clients that do something before the next pause.
const STEPS_AT_ONCE: usize = 5;

/// How those beside the slow clients fared.
#[derive(Debug)]
pub struct Outcome {
    /// The slowest percent of small requests, before.
    pub base_p99: Duration,
    /// The same, beside the slow clients.
    pub beside_p99: Duration,
    /// Small requests measured beside them.
    pub requests: usize,
    /// Uploads done beside them, all of them acknowledged.
    pub uploads: usize,
    /// The slowest of these uploads.
    pub upload_max: Duration,
    /// Slow connections that the server ended, and that came again.
    pub ended: usize,
}

/// A slow connection: what it dribbles, or nothing if it reads.
struct Slow {
    stream: TcpStream,
    dribble: Vec<u8>,
    sent: usize,
}

fn nar(seed: u64, length: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer.file_begin(&mut out, false, length as u64);
    out.extend_from_slice(&noise(seed, length));
    writer.file_end(&mut out, length as u64);
    out
}

/// One request on a connection of its own; all of the answer.
pub(crate) fn request(address: &str, head: &str, body: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("a server");
    stream.set_nodelay(true).expect("a socket");
    stream
        .set_read_timeout(Some(Duration::from_secs(120)))
        .expect("a socket");
    let head = format!(
        "{head}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream
        .write_all(&[head.as_bytes(), body].concat())
        .expect("a server that reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    answer
}

fn status(answer: &[u8]) -> u16 {
    let status = answer
        .get(9..12)
        .and_then(|text| std::str::from_utf8(text).ok());
    status.and_then(|text| text.parse().ok()).unwrap_or(0)
}

pub(crate) fn head(method: &str, path: &str, token: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: firn\r\nAuthorization: Bearer {token}\r\n")
}

fn upload(address: &str, token: &str, bytes: &[u8]) -> u16 {
    let path = format!("/main/nar/{}.nar", Sha256::of(bytes).base32());
    status(&request(address, &head("PUT", &path, token), bytes))
}

impl Slow {
    /// The kinds take turns: heads, NARs, frames, readers.
    fn open(server: &Server, token: &str, index: usize, nar_path: &str) -> std::io::Result<Self> {
        let mut stream = TcpStream::connect(server.address())?;
        let body = |head: String| format!("{head}Content-Length: 1000000\r\n\r\n");
        let (at_once, dribble) = match index % 4 {
            0 => (String::new(), head("GET", "/main/nix-cache-info", token)),
            1 => {
                let name = Sha256::of(&index.to_le_bytes()).base32();
                let head = head("PUT", &format!("/main/nar/{name}.nar"), token);
                (body(head), "x".repeat(1000))
            }
            2 => (
                body(head("POST", "/api/v1/caches", token) + "Content-Type: application/json\r\n"),
                " ".repeat(1000),
            ),
            _ => (head("GET", nar_path, token) + "\r\n", String::new()),
        };
        stream.write_all(at_once.as_bytes())?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            dribble: dribble.into_bytes(),
            sent: 0,
        })
    }

    /// One byte; false when the server has ended it.
    fn step(&mut self) -> bool {
        let mut byte = [0];
        let outcome = match self.dribble.get(self.sent) {
            Some(next) => {
                self.sent += 1;
                // Who is refused is told so, and reads it.
                let _ = self.stream.read(&mut byte);
                self.stream.write(&[*next])
            }
            None => self.stream.read(&mut byte),
        };
        match outcome {
            Ok(count) => count > 0,
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
}

/// Keeps `count` slow connections open, each with a byte a second, until told to stop.
fn dribble(server: &Server, count: usize, nar_path: &str, stop: &AtomicBool) -> usize {
    let token = server.token();
    let open = |index| Slow::open(server, &token, index, nar_path);
    let mut all: Vec<_> = (0..count).map(|index| open(index).ok()).collect();
    let mut ended = 0;
    let mut turn = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        // All of them once a second, but not all at once.
        for (index, slow) in all.iter_mut().enumerate() {
            if !slow.as_mut().is_some_and(Slow::step) {
                ended += 1;
                *slow = open(index).ok();
            }
            if index % STEPS_AT_ONCE == 0 {
                turn += Duration::from_secs(1) * STEPS_AT_ONCE as u32 / count as u32;
                std::thread::sleep(turn.saturating_duration_since(Instant::now()));
            }
        }
    }
    ended
}

/// Small requests, one after the other, for some time: how long each took.
fn measure(server: &Server, seconds: Duration) -> Vec<Duration> {
    let head = head("GET", "/main/nix-cache-info", &server.token());
    let (began, mut times) = (Instant::now(), Vec::new());
    while began.elapsed() < seconds {
        let one = Instant::now();
        assert_eq!(status(&request(server.address(), &head, b"")), 200);
        times.push(one.elapsed());
        std::thread::sleep(Duration::from_millis(1));
    }
    times.sort_unstable();
    times
}

pub(crate) fn p99(times: &[Duration]) -> Duration {
    times[times.len() * 99 / 100]
}

/// Measures small requests and uploads for `seconds` without and then with `connections` slow ones.
pub fn run(server: &Server, connections: usize, seconds: Duration) -> Outcome {
    let token = server.token();
    let read = nar(1, READ_NAR_BYTES);
    assert_eq!(upload(server.address(), &token, &read), 201);
    let nar_path = format!("/main/nar/{}.nar", Sha256::of(&read).base32());
    let (stop, seed) = (AtomicBool::new(false), AtomicUsize::new(10));
    // Uploads run along both times, so that the two can be compared.
    let uploads = || {
        let mut times = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let number = seed.fetch_add(1, Ordering::Relaxed);
            let one = Instant::now();
            assert_eq!(
                upload(server.address(), &token, &nar(number as u64, 300_000)),
                201
            );
            times.push(one.elapsed());
            std::thread::sleep(Duration::from_millis(100));
        }
        times
    };
    let (base, _) = std::thread::scope(|scope| {
        let uploading = scope.spawn(uploads);
        let base = measure(server, seconds.min(Duration::from_secs(20)));
        stop.store(true, Ordering::Relaxed);
        (base, uploading.join())
    });
    stop.store(false, Ordering::Relaxed);
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| dribble(server, connections, &nar_path, &stop));
        std::thread::sleep(Duration::from_secs(2));
        let uploading = scope.spawn(uploads);
        let beside = measure(server, seconds);
        stop.store(true, Ordering::Relaxed);
        let uploads = uploading.join().expect("the uploads");
        Outcome {
            base_p99: p99(&base),
            beside_p99: p99(&beside),
            requests: beside.len(),
            uploads: uploads.len(),
            upload_max: uploads.iter().max().copied().unwrap_or_default(),
            ended: slow.join().expect("the slow clients"),
        }
    })
}
