//! narinfo: what a binary cache says of one store path.
//!
//! Lines of `Key: value`, each ended by LF; exactly one space follows the
//! colon. Nix skips one character after the colon whatever it is, so that
//! `References:\n` makes it take the next line for the value: a text that two
//! parsers could read differently is refused here. The same goes for control
//! characters and repeated keys (but `Sig`).

use std::fmt::{self, Write as _};

use super::{Hash, Signature, StorePath};
use crate::Sha256;

/// Longest narinfo read, in bytes.
pub const NARINFO_BYTES_MAX: usize = 1 << 20;

/// Why a text is not a narinfo.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed narinfo: line {line}: {what}")]
pub struct NarInfoError {
    /// Line number, from 1; 0 for the whole.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

/// How a NAR is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Compression {
    None,
    Xz,
    Bzip2,
    Gzip,
    Zstd,
    Brotli,
    Lz4,
}

impl Compression {
    /// Each with the narinfo's word and the file ending.
    const ALL: [(Self, &'static str, &'static str); 7] = [
        (Self::None, "none", ""),
        (Self::Xz, "xz", ".xz"),
        (Self::Bzip2, "bzip2", ".bz2"),
        (Self::Gzip, "gzip", ".gz"),
        (Self::Zstd, "zstd", ".zst"),
        (Self::Brotli, "br", ".br"),
        (Self::Lz4, "lz4", ".lz4"),
    ];

    /// The file ending, `""` or with its dot (`.zst`).
    pub fn ending(self) -> &'static str {
        Self::ALL[self as usize].2
    }
    /// The narinfo's word.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
    /// From the narinfo's word.
    pub fn from_name(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|(_, word, _)| *word == name).map(|found| found.0)
    }
    /// From a file name such as `<hash>.nar.zst`; `None` unless it ends in `.nar` or `.nar.<known>`.
    pub fn from_nar_file_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find_map(|(compression, _, ending)| {
            let stem = name.strip_suffix(ending)?;
            stem.ends_with(".nar").then_some(compression)
        })
    }
}

/// A parsed narinfo. `Display` writes it in Nix's order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct NarInfo {
    pub store_path: StorePath,
    pub url: String,
    pub compression: Compression,
    pub file_hash: Option<Hash>,
    pub file_size: Option<u64>,
    pub nar_hash: Sha256,
    pub nar_size: u64,
    pub references: Vec<StorePath>,
    pub deriver: Option<StorePath>,
    pub signatures: Vec<Signature>,
    pub ca: Option<String>,
}

impl NarInfo {
    /// Parses; control characters and unsound values are refused. Unknown keys
    /// are passed over, references are sorted.
    pub fn parse(text: &str) -> Result<Self, NarInfoError> {
        if text.len() > NARINFO_BYTES_MAX {
            return Err(NarInfoError::new(0, "it is too long"));
        }
        let Some(body) = text.strip_suffix('\n') else {
            return Err(NarInfoError::new(0, "it does not end in a newline"));
        };
        let mut fields = Fields::default();
        for (index, line) in body.split('\n').enumerate() {
            fields
                .line(line)
                .map_err(|what| NarInfoError::new(index + 1, what))?;
        }
        fields.finish()
    }
    /// What signatures are over.
    pub fn fingerprint(&self) -> String {
        fingerprint(
            &self.store_path,
            &self.nar_hash,
            self.nar_size,
            &self.references,
        )
    }
}

impl NarInfoError {
    fn new(line: usize, what: impl Into<String>) -> Self {
        Self {
            line,
            what: what.into(),
        }
    }
}

/// What the lines so far have said.
#[derive(Default)]
struct Fields {
    store_path: Option<StorePath>,
    url: Option<String>,
    compression: Option<Compression>,
    file_hash: Option<Hash>,
    file_size: Option<u64>,
    nar_hash: Option<Sha256>,
    nar_size: Option<u64>,
    references: Option<Vec<StorePath>>,
    /// `Some(None)` is `unknown-deriver`.
    deriver: Option<Option<StorePath>>,
    signatures: Vec<Signature>,
    ca: Option<String>,
}

impl Fields {
    fn line(&mut self, line: &str) -> Result<(), String> {
        if line.chars().any(char::is_control) {
            return Err("it has a control character".into());
        }
        let (key, rest) = line.split_once(':').ok_or("it has no colon")?;
        let value = rest.strip_prefix(' ').ok_or("no space after the colon")?;
        match key {
            "StorePath" => once(&mut self.store_path, key, StorePath::parse(value)),
            "URL" => once(&mut self.url, key, non_empty(value)),
            "Compression" => once(&mut self.compression, key, compression(value)),
            "FileHash" => once(&mut self.file_hash, key, Hash::parse(value)),
            "FileSize" => once(&mut self.file_size, key, size(value)),
            "NarHash" => once(&mut self.nar_hash, key, Sha256::parse_nix(value)),
            "NarSize" => once(&mut self.nar_size, key, size(value)),
            "References" => once(&mut self.references, key, references(value)),
            "Deriver" => once(&mut self.deriver, key, deriver(value)),
            "CA" => once(&mut self.ca, key, non_empty(value)),
            "Sig" => {
                let signature = Signature::parse(value).map_err(|error| error.to_string())?;
                self.signatures.push(signature);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn finish(self) -> Result<NarInfo, NarInfoError> {
        let missing = |key: &str| NarInfoError::new(0, format!("{key} is missing"));
        let nar_size = self.nar_size.ok_or_else(|| missing("NarSize"))?;
        if nar_size == 0 {
            return Err(NarInfoError::new(0, "NarSize is 0"));
        }
        Ok(NarInfo {
            store_path: self.store_path.ok_or_else(|| missing("StorePath"))?,
            url: self.url.ok_or_else(|| missing("URL"))?,
            compression: self.compression.unwrap_or(Compression::Bzip2),
            file_hash: self.file_hash,
            file_size: self.file_size,
            nar_hash: self.nar_hash.ok_or_else(|| missing("NarHash"))?,
            nar_size,
            references: self.references.unwrap_or_default(),
            deriver: self.deriver.flatten(),
            signatures: self.signatures,
            ca: self.ca,
        })
    }
}

/// Fills a field that may come only once.
fn once<T, E: fmt::Display>(
    field: &mut Option<T>,
    key: &str,
    value: Result<T, E>,
) -> Result<(), String> {
    let value = value.map_err(|error| format!("{key}: {error}"))?;
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("{key} comes twice")),
    }
}

fn non_empty(value: &str) -> Result<String, &'static str> {
    if value.is_empty() {
        return Err("it is empty");
    }
    Ok(value.to_owned())
}

fn compression(value: &str) -> Result<Compression, &'static str> {
    if value.is_empty() {
        return Ok(Compression::Bzip2);
    }
    Compression::from_name(value).ok_or("unknown compression")
}

fn size(value: &str) -> Result<u64, &'static str> {
    // `parse` alone would take a plus sign.
    if !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("not a size");
    }
    value.parse().map_err(|_| "not a size")
}

fn references(value: &str) -> Result<Vec<StorePath>, super::store_path::StorePathError> {
    let mut paths = value
        .split(' ')
        .filter(|word| !word.is_empty())
        .map(StorePath::parse_base_name)
        .collect::<Result<Vec<_>, _>>()?;
    paths.sort_unstable();
    paths.dedup();
    Ok(paths)
}

fn deriver(value: &str) -> Result<Option<StorePath>, super::store_path::StorePathError> {
    match value {
        "unknown-deriver" => Ok(None),
        _ => StorePath::parse_base_name(value).map(Some),
    }
}

/// References as Nix writes them: a sorted set.
fn sorted(references: &[StorePath]) -> Vec<&StorePath> {
    let mut sorted: Vec<_> = references.iter().collect();
    sorted.sort_unstable();
    sorted.dedup();
    sorted
}

/// `1;<path>;sha256:<base32>;<size>;<sorted full reference paths, comma-joined>`.
pub fn fingerprint(
    path: &StorePath,
    nar_hash: &Sha256,
    nar_size: u64,
    references: &[StorePath],
) -> String {
    let mut out = format!("1;{};{};{nar_size};", path.absolute(), nar_hash.nix());
    for (index, reference) in sorted(references).into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(super::store_path::STORE_DIR);
        out.push('/');
        // Writing to a string cannot fail.
        let _ = write!(out, "{reference}");
    }
    out
}

/// A text that can add no line: what forges a narinfo is left out.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.split(char::is_control) {
            f.write_str(part)?;
        }
        Ok(())
    }
}

impl fmt::Display for NarInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "StorePath: {}", self.store_path.absolute())?;
        writeln!(f, "URL: {}", OneLine(&self.url))?;
        writeln!(f, "Compression: {}", self.compression.name())?;
        if let Some(hash) = &self.file_hash {
            writeln!(f, "FileHash: {hash}")?;
        }
        if let Some(size) = self.file_size {
            writeln!(f, "FileSize: {size}")?;
        }
        writeln!(f, "NarHash: {}", self.nar_hash.nix())?;
        writeln!(f, "NarSize: {}", self.nar_size)?;
        f.write_str("References: ")?;
        for (index, reference) in sorted(&self.references).into_iter().enumerate() {
            let space = if index > 0 { " " } else { "" };
            write!(f, "{space}{reference}")?;
        }
        f.write_char('\n')?;
        if let Some(deriver) = &self.deriver {
            writeln!(f, "Deriver: {deriver}")?;
        }
        for signature in &self.signatures {
            writeln!(f, "Sig: {}", OneLine(&signature.to_string()))?;
        }
        if let Some(ca) = &self.ca {
            writeln!(f, "CA: {}", OneLine(ca))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
