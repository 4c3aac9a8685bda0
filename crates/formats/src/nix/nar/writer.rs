use super::{MAGIC, padding};

/// Writes the structure bytes of a NAR into a buffer; the caller writes contents
/// itself between [`Writer::file_begin`] and [`Writer::file_end`].
#[derive(Debug)]
pub struct Writer {}

impl Writer {
    /// Starts an archive: appends the magic to `out`.
    pub fn new(out: &mut Vec<u8>) -> Self {
        string(out, MAGIC);
        Self {}
    }
    /// Opens a directory node.
    pub fn directory_begin(&mut self, out: &mut Vec<u8>) {
        strings(out, &[b"(", b"type", b"directory"]);
    }
    /// Opens an entry of the current directory; names must come sorted bytewise.
    pub fn entry_begin(&mut self, out: &mut Vec<u8>, name: &[u8]) {
        strings(out, &[b"entry", b"(", b"name", name, b"node"]);
    }
    /// Closes an entry.
    pub fn entry_end(&mut self, out: &mut Vec<u8>) {
        string(out, b")");
    }
    /// Closes a directory node.
    pub fn directory_end(&mut self, out: &mut Vec<u8>) {
        string(out, b")");
    }
    /// A symlink node.
    pub fn symlink(&mut self, out: &mut Vec<u8>, target: &[u8]) {
        strings(out, &[b"(", b"type", b"symlink", b"target", target, b")"]);
    }
    /// Opens a regular file; exactly `size` content bytes follow.
    pub fn file_begin(&mut self, out: &mut Vec<u8>, executable: bool, size: u64) {
        strings(out, &[b"(", b"type", b"regular"]);
        if executable {
            strings(out, &[b"executable", b""]);
        }
        string(out, b"contents");
        out.extend_from_slice(&size.to_le_bytes());
    }
    /// Padding and closing of a file of `size` bytes.
    pub fn file_end(&mut self, out: &mut Vec<u8>, size: u64) {
        pad(out, size);
        string(out, b")");
    }
}

fn strings(out: &mut Vec<u8>, all: &[&[u8]]) {
    for bytes in all {
        string(out, bytes);
    }
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = bytes.len() as u64;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
    pad(out, length);
}

fn pad(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(&[0; 8][..padding(length)]);
}
