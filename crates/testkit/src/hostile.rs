//! Malformed requests by the thousand: good ones of each door, changed at random but the same in every run.
//! What a server must not do with them: answer 5xx, take long, or end.
#![allow(
    clippy::expect_used,
    reason = "a scenario that cannot be played fails its test"
)]

pub mod actions;

use firn_formats::Sha256;
use firn_formats::nix::base32;
use firn_formats::push::{
    Begin, BlobKind, Proposal, Publish, PublishPath, encode_frame, encode_proposals,
};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// No answer may take longer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);
/// A machine with other work makes any answer slow now and then; one that is slow each time is.
const TRIES: usize = 4;

/// Numbers that look random and are the same in every run.
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Any number.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`; 0 if that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() >> 11) as usize % end.max(1)
    }

    /// One of these, which are not none.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// The path names the hash of the body: without the right one no parser ever sees it.
    named_by_hash: bool,
}

/// The doors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Door {
    Nix,
    Push,
    Admin,
}

impl Request {
    fn new(method: &'static str, path: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self {
            method,
            path: path.into(),
            headers: Vec::new(),
            body: body.into(),
            named_by_hash: false,
        }
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A NAR of one small file.
fn nar() -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = firn_formats::nix::nar::Writer::new(&mut out);
    writer.directory_begin(&mut out);
    writer.entry_begin(&mut out, b"file");
    writer.file_begin(&mut out, true, 5);
    out.extend_from_slice(b"hello");
    writer.file_end(&mut out, 5);
    writer.entry_end(&mut out);
    writer.directory_end(&mut out);
    out
}

const HASH: &str = "00gzizwnxlwb7ywpp3mykmdni4vllrs8";

fn nix_requests() -> Vec<Request> {
    let nar = nar();
    let wrapped = |format| {
        let mut out = Vec::new();
        let mut encoder = firn_formats::nix::rewrap::Encoder::new(format, nar.len() as u64);
        encoder.push(&nar, &mut out).expect("as long as announced");
        encoder.finish(&mut out).expect("all of it");
        out
    };
    use firn_formats::nix::rewrap::Format;
    let zstd = firn_chunks::Encoder::new(1).encode(&nar).frame().to_vec();
    let mut requests = Vec::new();
    for (ending, body) in [
        ("", nar.clone()),
        (".zst", zstd),
        (".xz", wrapped(Format::Xz)),
        (".br", wrapped(Format::Brotli)),
        ("", wrapped(Format::Gzip)),
        (".bz2", b"BZh91AY&SY".to_vec()),
    ] {
        let mut request = Request::new("PUT", format!("/main/nar/NAME.nar{ending}"), body);
        request.named_by_hash = true;
        requests.push(request);
    }
    let hash = Sha256::of(&nar).base32();
    let narinfo = format!(
        "StorePath: /nix/store/{HASH}-x\nURL: nar/{hash}.nar\nCompression: none\nFileHash: sha256:{hash}\n\
         FileSize: {size}\nNarHash: sha256:{hash}\nNarSize: {size}\nReferences: {HASH}-x\nDeriver: {HASH}-x.drv\n\
         Sig: k:AAAA\nCA: fixed:r:sha256:{hash}\n",
        size = nar.len()
    );
    let json =
        r#"{"version":1,"root":{"type":"directory","entries":{"a":{"type":"regular","size":3}}}}"#;
    requests.extend([
        Request::new("PUT", format!("/main/{HASH}.narinfo"), narinfo),
        Request::new("PUT", format!("/main/{HASH}.ls"), json),
        Request::new("PUT", format!("/main/log/{HASH}-x.drv"), "log"),
        Request::new("PUT", "/main/realisations/sha256:00%21out.doi", json),
        Request::new(
            "PUT",
            format!("/main/build-trace-v2/{HASH}-x.drv/out.doi"),
            json,
        ),
        Request::new("PUT", "/main/debuginfo/abcdef", json).header("Content-Encoding", "gzip"),
        Request::new("GET", format!("/main/nar/{hash}.nar"), "").header("Range", "bytes=3-9"),
        Request::new("GET", format!("/main/nar/{hash}.nar.xz"), ""),
        Request::new("GET", format!("/main/{HASH}.narinfo"), ""),
        Request::new("GET", format!("/main/{HASH}.ls"), ""),
        Request::new("HEAD", "/main/nix-cache-info", ""),
    ]);
    requests
}

fn push_requests(session: &str) -> Vec<Request> {
    let frame = firn_chunks::Encoder::new(1).encode(&nar());
    let id = frame.record().id.0;
    let proposals = encode_proposals(&[Proposal {
        kind: BlobKind::Nar,
        chunks: vec![(id, frame.record().raw_length), ([7; 32], 100)],
    }]);
    let mut frames = Vec::new();
    encode_frame(&id, frame.frame(), &mut frames);
    let begin = Begin {
        paths: vec![HASH.to_owned()],
        layers: vec!["k".to_owned()],
        session: Some(session.to_owned()),
        gzip: true,
    };
    let publish = Publish {
        paths: vec![PublishPath {
            path: format!("{HASH}-x"),
            nar_hash: Sha256::of(&nar()).base32(),
            nar_size: nar().len() as u64,
            references: vec![format!("{HASH}-x")],
            deriver: Some(format!("{HASH}-x.drv")),
            signatures: vec!["k:AAAA".to_owned()],
            ca: None,
            blob: 1,
        }],
        layers: Vec::new(),
    };
    let text = |value: serde_json::Result<Vec<u8>>| value.expect("JSON");
    let of = |what: &str| format!("/api/v1/push/{session}/{what}");
    vec![
        Request::new(
            "POST",
            "/api/v1/push/begin?cache=main",
            text(serde_json::to_vec(&begin)),
        ),
        Request::new("POST", of("blobs"), proposals.clone()),
        Request::new("POST", of("blobs?parts=0,1"), proposals.clone()),
        Request::new("POST", of("parts"), proposals),
        Request::new("POST", of("frames"), frames.clone()),
        Request::new("POST", of("frames"), frames),
        Request::new("POST", of("publish"), text(serde_json::to_vec(&publish))),
        Request::new("POST", of("heartbeat"), ""),
        Request::new("GET", format!("/api/v1/chunks/{HASH}?cache=main"), ""),
    ]
}

fn admin_requests() -> Vec<Request> {
    vec![
        Request::new(
            "POST",
            "/api/v1/caches",
            r#"{"name":"acme/web","public":true,"domain":"acme/web"}"#,
        )
        .header("content-type", "application/json"),
        Request::new(
            "POST",
            "/api/v1/tokens",
            r#"{"caches":["acme/*"],"allow":["pull","push"],"expires_in":60,"note":"n"}"#,
        )
        .header("content-type", "application/json"),
        Request::new(
            "POST",
            "/api/v1/status",
            format!(r#"{{"cache":"main","paths":["{HASH}-x"]}}"#),
        ),
        Request::new("GET", "/api/v1/caches/acme/web", ""),
        Request::new("GET", "/api/v1/whoami", ""),
        Request::new("GET", "/api/v1/stats", ""),
        Request::new("DELETE", "/api/v1/tokens/none", ""),
        Request::new("GET", "/metrics", ""),
    ]
}

/// Changes some bytes.
fn mutate_bytes(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len());
        match random.below(9) {
            0 => bytes.truncate(at),
            1 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            2 if !bytes.is_empty() => bytes[at] = random.next() as u8,
            3 => {
                let count = 1 + random.below(16);
                bytes.splice(at..at, std::iter::repeat_n(random.next() as u8, count));
            }
            4 => {
                let piece: Vec<u8> = bytes[at..].iter().take(40).copied().collect();
                bytes.splice(at..at, piece);
            }
            5 if bytes.len() >= at + 8 => {
                let number = *random.pick(&[0, 1, 0x7fff_ffff, 0xffff_ffff, 1 << 63, u64::MAX]);
                bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
            }
            6 => {
                let end = (at + random.below(20)).min(bytes.len());
                bytes.drain(at..end);
            }
            7 => {
                let nested = [&b"["[..], b"{\"a\":", b"\"", b"\\u0000", b"1e999", b"\n"];
                let count = *random.pick(&[1, 10, 500]);
                let piece = random.pick(&nested).repeat(count);
                bytes.splice(at..at, piece);
            }
            _ => bytes.extend_from_slice(&random.next().to_le_bytes()),
        }
    }
}

/// Changes a text of a request's head, which stays a text of a head.
fn mutate_text(random: &mut Random, text: &mut String) {
    let mut bytes = std::mem::take(text).into_bytes();
    let pieces = [
        "%00",
        "%2e%2e",
        "../",
        "//",
        "%ff",
        "..",
        "~",
        "%",
        "?",
        "=",
        "&",
        "0",
        "-",
        "99999999999999999999",
        ":",
        "!",
        "Z",
        "bytes=",
        ",",
        "*",
    ];
    for _ in 0..1 + random.below(3) {
        let at = random.below(bytes.len());
        match random.below(4) {
            0 => bytes.truncate(at),
            1 => drop(bytes.splice(at..at, random.pick(&pieces).bytes())),
            2 => drop(bytes.splice(at..at, random.pick(&pieces).repeat(50).into_bytes())),
            _ if !bytes.is_empty() => bytes[at] = b'!' + random.below(94) as u8,
            _ => {}
        }
    }
    bytes.retain(u8::is_ascii_graphic);
    *text = String::from_utf8_lossy(&bytes).into_owned();
}

fn mutate(random: &mut Random, request: &mut Request) {
    let named = request.named_by_hash;
    match random.below(10) {
        0..=5 => mutate_bytes(random, &mut request.body),
        6 => {
            mutate_text(random, &mut request.path);
            if !request.path.starts_with('/') {
                request.path.insert(0, '/');
            }
        }
        7 => {
            let names = [
                "Range",
                "Content-Encoding",
                "Content-Type",
                "Content-Range",
                "Accept",
                "Expect-Not",
            ];
            let values = [
                "bytes=0-0",
                "gzip",
                "zstd",
                "br",
                "xz",
                "bytes=5-2",
                "application/json",
            ];
            let mut value = (*random.pick(&values)).to_owned();
            if random.below(2) == 0 {
                mutate_text(random, &mut value);
            }
            request
                .headers
                .push(((*random.pick(&names)).to_owned(), value));
        }
        8 => {
            request.method =
                *random.pick(&["GET", "PUT", "POST", "DELETE", "HEAD", "PATCH", "OPTIONS"])
        }
        _ => {
            mutate_bytes(random, &mut request.body);
            mutate_text(random, &mut request.path);
            if !request.path.starts_with('/') {
                request.path.insert(0, '/');
            }
        }
    }
    // Most get the name that lets them in.
    if named && random.below(8) > 0 {
        let digest = Sha256::of(&request.body);
        request.path = request.path.replace("NAME", &base32::encode(&digest.0));
    }
}

/// Answers, counted by status; 0 is a connection that was closed without one.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Report {
    /// How many of each.
    pub statuses: std::collections::BTreeMap<u16, usize>,
    /// What must not be, if something was.
    pub faults: Vec<String>,
}

struct Connection {
    address: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Connection {
    /// Sends a request, gives the status.
    fn send(&mut self, bytes: &[u8], head_only: bool) -> std::io::Result<u16> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(&self.address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(Duration::from_secs(60)))?;
                BufReader::new(stream)
            }
        };
        stream.get_mut().write_all(bytes)?;
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(0);
        }
        let status = line
            .get(9..12)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let (mut length, mut keep) = (None, true);
        loop {
            line.clear();
            if stream.read_line(&mut line)? == 0 || line == "\r\n" {
                break;
            }
            let header = line.to_ascii_lowercase();
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse::<u64>().ok();
            }
            keep &= !header.starts_with("connection: close")
                && !header.starts_with("transfer-encoding");
        }
        let bodiless = head_only || matches!(status, 204 | 304 | 100..=199);
        match length {
            _ if bodiless => {}
            Some(length) => {
                let copied = std::io::copy(&mut (&mut stream).take(length), &mut std::io::sink())?;
                keep &= copied == length;
            }
            None => keep = false,
        }
        if keep {
            self.stream = Some(stream);
        }
        Ok(status)
    }
}

fn wire(random: &mut Random, request: &Request, token: &str) -> Vec<u8> {
    let mut head = format!(
        "{} {} HTTP/1.1\r\nHost: firn\r\n",
        request.method, request.path
    );
    match random.below(20) {
        0 => {}
        1 => head.push_str("Authorization: Bearer nonsense.of.mine\r\n"),
        2 => head.push_str("Authorization: Basic !!!\r\n"),
        _ => head.push_str(&format!("Authorization: Bearer {token}\r\n")),
    }
    for (name, value) in &request.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", request.body.len()));
    [head.as_bytes(), &request.body].concat()
}

/// Sends `count` malformed requests to a door of the server at `address`, one after the other.
pub fn run(address: &str, token: &str, door: Door, seed: u64, count: usize) -> Report {
    let mut connection = Connection {
        address: address.to_owned(),
        stream: None,
    };
    let requests = match door {
        Door::Nix => nix_requests(),
        Door::Admin => admin_requests(),
        Door::Push => push_requests(&begin(&mut connection, token)),
    };
    run_requests(address, token, &requests, seed, count)
}

/// As [`run`], with these requests.
pub fn run_requests(
    address: &str,
    token: &str,
    requests: &[Request],
    seed: u64,
    count: usize,
) -> Report {
    let mut random = Random::new(seed);
    let mut report = Report::default();
    let mut connection = Connection {
        address: address.to_owned(),
        stream: None,
    };
    for _ in 0..count {
        let mut request = random.pick(requests).clone();
        mutate(&mut random, &mut request);
        let bytes = wire(&mut random, &request, token);
        let mut slow = Duration::MAX;
        for _ in 0..TRIES {
            let began = Instant::now();
            // A connection may be closed under a request that is refused before it was read.
            let status = connection
                .send(&bytes, request.method == "HEAD")
                .unwrap_or(0);
            slow = slow.min(began.elapsed());
            *report.statuses.entry(status).or_default() += 1;
            if status >= 500 {
                report
                    .faults
                    .push(format!("{status}: {}", String::from_utf8_lossy(&bytes)));
            }
            if slow < ANSWER_TIME_MAX {
                break;
            }
        }
        if slow >= ANSWER_TIME_MAX {
            report
                .faults
                .push(format!("{slow:?}: {}", String::from_utf8_lossy(&bytes)));
        }
    }
    report
}

/// Opens a push session.
fn begin(connection: &mut Connection, token: &str) -> String {
    let body = format!(r#"{{"paths":["{HASH}"]}}"#);
    let request = format!(
        "POST /api/v1/push/begin?cache=main HTTP/1.1\r\nHost: firn\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(&connection.address).expect("a server");
    stream
        .write_all(request.as_bytes())
        .expect("a server that reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let json = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let begun: serde_json::Value = serde_json::from_str(json).expect("a session");
    begun["session"].as_str().expect("a session").to_owned()
}
