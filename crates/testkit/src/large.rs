//! A NAR that is larger than any memory: made as it is sent, hashed as it comes back.
#![allow(
    clippy::expect_used,
    reason = "a scenario that cannot be played fails its test"
)]

use crate::rigs::serve::Server;
use firn_formats::Sha256;
use firn_formats::nix::nar::Writer;
use firn_formats::sha256::Sha256Hasher;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

const BLOCK_BYTES: usize = 1 << 20;

/// What the file in the NAR holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Bytes that do not compress.
    Noise,
    /// Of every MiB 4 KiB are noise, and the rest zeros.
    Sparse,
}

/// Hands out the bytes of a NAR with one file of `length` bytes, which are the same each time.
fn nar(length: u64, content: Content, sink: &mut dyn FnMut(&[u8])) {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer.file_begin(&mut out, false, length);
    sink(&out);
    let (mut state, mut rest, mut block) =
        (0x9e37_79b9_7f4a_7c15_u64, length, vec![0; BLOCK_BYTES]);
    while rest > 0 {
        let noisy = match content {
            Content::Noise => BLOCK_BYTES,
            Content::Sparse => 4096,
        };
        for word in block[..noisy].as_chunks_mut::<8>().0 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *word = state.to_le_bytes();
        }
        let now = rest.min(BLOCK_BYTES as u64);
        sink(&block[..now as usize]);
        rest -= now;
    }
    out.clear();
    writer.file_end(&mut out, length);
    sink(&out);
}

/// A NAR that was uploaded.
pub struct Uploaded {
    /// Its path on the server.
    pub path: String,
    /// Its hash.
    pub hash: Sha256,
    /// Its size in bytes.
    pub size: u64,
}

/// Uploads a NAR as `nix copy` does, its narinfo after it.
pub fn upload(server: &Server, length: u64, content: Content) -> Uploaded {
    let (mut hasher, mut size) = (Sha256Hasher::new(), 0);
    nar(length, content, &mut |bytes| {
        hasher.update(bytes);
        size += bytes.len() as u64;
    });
    let hash = hasher.finish();
    let path = format!("/main/nar/{}.nar", hash.base32());
    let mut stream = begin(server, "PUT", &path, size);
    nar(length, content, &mut |bytes| {
        stream.write_all(bytes).expect("a server that reads");
    });
    assert_eq!(answer(stream).0, 201);
    let store_path = format!("{}-large", &Sha256::of(&hash.0).base32()[..32]);
    let narinfo = format!(
        "StorePath: /nix/store/{store_path}\nURL: nar/{0}.nar\nCompression: none\nNarHash: sha256:{0}\n\
         NarSize: {size}\nReferences: \n",
        hash.base32()
    );
    let narinfo_path = format!("/main/{}.narinfo", &store_path[..32]);
    let mut stream = begin(server, "PUT", &narinfo_path, narinfo.len() as u64);
    stream
        .write_all(narinfo.as_bytes())
        .expect("a server that reads");
    assert_eq!(answer(stream).0, 201);
    Uploaded { path, hash, size }
}

/// Downloads it again and says its size and hash.
pub fn download(server: &Server, path: &str) -> (u64, Sha256) {
    let (status, mut body) = answer(begin(server, "GET", path, 0));
    assert_eq!(status, 200);
    let (mut hasher, mut size, mut block) = (Sha256Hasher::new(), 0, vec![0; BLOCK_BYTES]);
    loop {
        let count = body.read(&mut block).expect("bytes");
        if count == 0 {
            return (size, hasher.finish());
        }
        hasher.update(&block[..count]);
        size += count as u64;
    }
}

fn begin(server: &Server, method: &str, path: &str, length: u64) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).expect("a server");
    let token = server.token();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: firn\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    )
    .expect("a server that reads");
    stream
}

/// The status, and the body after the head.
fn answer(stream: TcpStream) -> (u16, BufReader<TcpStream>) {
    let mut reader = BufReader::with_capacity(BLOCK_BYTES, stream);
    let mut line = String::new();
    reader.read_line(&mut line).expect("an answer");
    let status = line.get(9..12).and_then(|text| text.parse().ok());
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line).expect("a head");
    }
    (status.expect("a status"), reader)
}
