//! Content addresses, checked before they are repeated to others: Nix believes a path whose content address fits it
//! without any signature, and refuses one whose content has another.

use super::{NixCache, VerifiedPath};
use crate::ServiceError;
use firn_formats::nix::ContentAddress;
use firn_formats::nix::content_address::Method;
use firn_formats::nix::hash::Algorithm;
use firn_formats::nix::nar::{EntryKind, Event, Parser};
use firn_store::Observer;
use sha2::{Digest as _, Sha256, Sha512};

/// Characters of a store path's hash part.
const HASH_PART_BYTES: usize = 32;

impl NixCache {
    /// Refuses a content address that is not the path's or not its content's. One that cannot be checked is left out:
    /// a signature says as much.
    pub(super) fn check_address(&self, path: &mut VerifiedPath) -> Result<(), ServiceError> {
        let Some(text) = path.ca.clone() else {
            return Ok(());
        };
        let address = ContentAddress::parse(&text);
        let hasher = address.as_ref().and_then(Hasher::of);
        let (Some(address), Some(hasher)) = (address, hasher) else {
            tracing::debug!(path = %path.path, ca = text, "left out: it cannot be checked here");
            path.ca = None;
            return Ok(());
        };
        if !address.is_of(&path.path, &path.references) {
            return Err(ServiceError::HashMismatch(format!(
                "the content address {text} is of another path than {} with these references",
                path.path
            )));
        }
        let whole = address.method == Method::Recursive
            && address.hash.as_sha256() == Some(path.blob.identity_sha256);
        if whole || self.content_has(path, &address, hasher)? {
            return Ok(());
        }
        Err(ServiceError::HashMismatch(format!(
            "the content of {} has another content address than {text}",
            path.path
        )))
    }

    /// Reads the NAR and hashes what the address is of.
    fn content_has(
        &self,
        path: &VerifiedPath,
        address: &ContentAddress,
        hasher: Hasher,
    ) -> Result<bool, ServiceError> {
        let found = match address.method {
            Method::Recursive => {
                let mut tree = Modulo::new(hasher, path.path.hash().to_string());
                self.observe(&path.blob, &mut tree)?;
                tree.finish().to_vec()
            }
            Method::Text | Method::Flat => {
                let mut file = File::new(hasher);
                self.observe(&path.blob, &mut file)?;
                file.finish().into_iter().collect()
            }
        };
        Ok(found.iter().any(|found| found == address.hash.digest()))
    }
}

#[derive(Clone)]
enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    /// MD5 and SHA-1 are not worth their code: what they promise anyone can forge.
    fn of(address: &ContentAddress) -> Option<Self> {
        match address.hash.algorithm() {
            Algorithm::Sha256 => Some(Self::Sha256(Sha256::new())),
            Algorithm::Sha512 => Some(Self::Sha512(Sha512::new())),
            Algorithm::Md5 | Algorithm::Sha1 => None,
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    fn finish(self) -> Vec<u8> {
        match self {
            Self::Sha256(hasher) => hasher.finalize().to_vec(),
            Self::Sha512(hasher) => hasher.finalize().to_vec(),
        }
    }
}

/// The content of a NAR that is one file.
struct File {
    parser: Parser,
    hasher: Hasher,
    is_file: bool,
}

impl File {
    fn new(hasher: Hasher) -> Self {
        Self {
            parser: Parser::of_stored(),
            hasher,
            is_file: false,
        }
    }

    fn finish(self) -> Option<Vec<u8>> {
        let whole = self.is_file && self.parser.finish().is_ok();
        whole.then(|| self.hasher.finish())
    }
}

impl Observer for File {
    fn read(&mut self, raw: &[u8]) {
        let (hasher, is_file) = (&mut self.hasher, &mut self.is_file);
        // A fault stays one: the end is then none.
        let _ = self.parser.push(raw, &mut |event| match event {
            Event::Entry { path, kind } => {
                *is_file = path.is_empty() && matches!(kind, EntryKind::Regular { .. });
            }
            Event::Content(bytes) if *is_file => hasher.update(bytes),
            _ => {}
        });
    }
}

/// A NAR in which a hash part counts as zeros, as Nix hashes what refers to itself. Older Nix (2.8) hashes the places
/// where it stood behind that, newer (2.26) does not; what either has made is around.
struct Modulo {
    hasher: Hasher,
    part: Vec<u8>,
    /// The last bytes, in which the hash part may have begun.
    held: Vec<u8>,
    /// Bytes before those held.
    offset: u64,
    found: Vec<u64>,
}

impl Modulo {
    fn new(hasher: Hasher, part: String) -> Self {
        Self {
            hasher,
            part: part.into_bytes(),
            held: Vec::new(),
            offset: 0,
            found: Vec::new(),
        }
    }

    /// Without the places and with them.
    fn finish(mut self) -> [Vec<u8>; 2] {
        self.hasher.update(&self.held);
        let without = self.hasher.clone().finish();
        for place in &self.found {
            self.hasher.update(format!("|{place}").as_bytes());
        }
        [without, self.hasher.finish()]
    }
}

impl Observer for Modulo {
    fn read(&mut self, raw: &[u8]) {
        self.held.extend_from_slice(raw);
        let places: Vec<usize> = memchr::memmem::find_iter(&self.held, &self.part).collect();
        for place in places {
            self.found.push(self.offset + place as u64);
            if let Some(part) = self.held.get_mut(place..place + self.part.len()) {
                part.fill(0);
            }
        }
        let done = self.held.len().saturating_sub(HASH_PART_BYTES - 1);
        self.hasher
            .update(self.held.get(..done).unwrap_or_default());
        self.held.drain(..done);
        self.offset += done as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_part_counts_as_zeros_wherever_pieces_end() {
        let part = "0123456789abcdfghijklmnpqrsvwxyz";
        let text = format!("before {part} between {part}{part} after");
        let zeros = text.replace(part, &"\0".repeat(32));
        let places = [7, 48, 80].map(|place| format!("|{place}")).concat();
        let expected = [zeros.clone(), format!("{zeros}{places}")]
            .map(|text| Sha256::digest(text.as_bytes()).to_vec());
        for piece in 1..text.len() {
            let mut modulo = Modulo::new(Hasher::Sha256(Sha256::new()), part.to_owned());
            text.as_bytes()
                .chunks(piece)
                .for_each(|piece| modulo.read(piece));
            assert_eq!(modulo.finish(), expected, "{piece}");
        }
    }
}
