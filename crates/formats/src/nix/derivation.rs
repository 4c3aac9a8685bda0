//! Derivations (`.drv`) in ATerm form.
//!
//! `Derive([outputs],[input derivations],[input sources],"system","builder",
//! [arguments],[environment])`, without white space. In strings `\"`, `\\`,
//! `\n`, `\r` and `\t` are escaped. Nothing nests without bound.

mod parser;

use std::collections::{BTreeMap, BTreeSet};

/// Longest derivation read, in bytes.
pub const DERIVATION_BYTES_MAX: usize = 64 << 20;

/// Why bytes are not a derivation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed derivation at byte {offset}: {what}")]
pub struct DerivationError {
    /// Offset of the fault.
    pub offset: usize,
    /// What is wrong.
    pub what: String,
}

/// One output.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Output {
    pub path: String,
    pub hash_algorithm: String,
    pub hash: String,
}

/// A derivation. Strings are bytes in Nix; those that are not UTF-8 are refused here only where a path is expected.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Derivation {
    pub outputs: BTreeMap<String, Output>,
    pub input_derivations: BTreeMap<String, BTreeSet<String>>,
    pub input_sources: BTreeSet<String>,
    pub system: Vec<u8>,
    pub builder: Vec<u8>,
    pub arguments: Vec<Vec<u8>>,
    pub environment: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Derivation {
    /// Parses `Derive(...)`. Repeated outputs, inputs or variables are refused.
    pub fn parse(bytes: &[u8]) -> Result<Self, DerivationError> {
        parser::parse(bytes)
    }

    /// Writes it back, byte for byte as Nix does.
    pub fn to_aterm(&self) -> Vec<u8> {
        let mut out = b"Derive(".to_vec();
        list(&mut out, &self.outputs, |out, (name, output)| {
            let fields = [name, &output.path, &output.hash_algorithm, &output.hash];
            tuple(out, &fields.map(String::as_bytes));
        });
        out.push(b',');
        list(&mut out, &self.input_derivations, |out, (path, names)| {
            out.push(b'(');
            string(out, path.as_bytes());
            out.push(b',');
            list(out, names, |out, name| string(out, name.as_bytes()));
            out.push(b')');
        });
        out.push(b',');
        list(&mut out, &self.input_sources, |out, path| {
            string(out, path.as_bytes());
        });
        out.push(b',');
        string(&mut out, &self.system);
        out.push(b',');
        string(&mut out, &self.builder);
        out.push(b',');
        list(&mut out, &self.arguments, |out, argument| {
            string(out, argument)
        });
        out.push(b',');
        list(&mut out, &self.environment, |out, (name, value)| {
            tuple(out, &[name, value]);
        });
        out.push(b')');
        out
    }
}

fn list<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

fn tuple(out: &mut Vec<u8>, fields: &[&[u8]]) {
    out.push(b'(');
    for (index, field) in fields.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        string(out, field);
    }
    out.push(b')');
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for byte in bytes {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            other => out.push(*other),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests;
