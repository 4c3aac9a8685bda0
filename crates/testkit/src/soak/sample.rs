//! Store paths made of a number: the same number, the same bytes.

use firn_formats::Sha256;
use firn_formats::nix::nar::Writer;
use firn_formats::nix::{Compression, NarInfo, StorePath, base32};

/// Files that many paths share.
const POOL: u64 = 160;
/// Of these, how many a generation draws from; the window moves on, so that shared files die and come back.
const WINDOW: u64 = 60;
const FILES_MAX: u64 = 10;

/// Random enough to vary what is done; the same for the same seed.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Begins anywhere.
    pub const fn new(seed: u64) -> Self {
        Self(seed ^ 0x9E37_79B9_7F4A_7C15)
    }

    /// The next number (splitmix64).
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// One below `end`, which is not zero.
    pub const fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// A path's number: which bytes it has and what it refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seed {
    /// The run's own, so that two runs share nothing by chance.
    pub run: u64,
    /// Moves the window of shared files.
    pub generation: u64,
    /// Its number in all of the run.
    pub number: u64,
    /// It refers to the `depth` numbers before its own.
    pub depth: u64,
}

/// A store path and its archive.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Its name.
    pub path: StorePath,
    /// What it needs.
    pub references: Vec<StorePath>,
    /// Its bytes.
    pub nar: Vec<u8>,
}

/// Bytes of a file, of which half do not compress.
fn file(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        for _ in 0..32 {
            out.extend_from_slice(&random.next().to_le_bytes());
        }
        let line = [b'a' + (random.next() % 26) as u8; 16];
        (0..16).for_each(|_| out.extend_from_slice(&line));
    }
    out.truncate(length);
    out
}

impl Seed {
    /// Its store path.
    ///
    /// # Panics
    /// Never: the name is sound.
    #[allow(clippy::expect_used)]
    pub fn path(self) -> StorePath {
        let digest = Sha256::of(format!("{} {}", self.run, self.number).as_bytes());
        let hash = base32::encode(&digest.0[..20]);
        StorePath::parse_base_name(&format!("{hash}-soak-{}", self.number)).expect("a store path")
    }

    /// The path with its bytes.
    pub fn sample(self) -> Sample {
        let mut random = Random::new(self.run.wrapping_mul(31).wrapping_add(self.number));
        let references: Vec<StorePath> = (1..=self.depth)
            .map(|back| {
                let number = self.number - back;
                Self { number, ..self }.path()
            })
            .collect();
        let mut nar = Vec::new();
        let mut writer = Writer::new(&mut nar);
        writer.directory_begin(&mut nar);
        for index in 0..=random.below(FILES_MAX) {
            let name = format!("file-{index:02}");
            let content = match random.below(5) {
                0 => {
                    let length = 500 + random.below(200_000) as usize;
                    // References stand in contents, where the chunker cuts them out.
                    let mut own = file(random.next(), length);
                    for reference in &references {
                        own.extend_from_slice(format!("/nix/store/{reference}/lib\n").as_bytes());
                    }
                    own
                }
                _ => {
                    let first = self.generation.wrapping_mul(WINDOW / 2);
                    let shared = (first + random.below(WINDOW)) % POOL;
                    let length = 2000 + (shared * 7919) % 150_000;
                    file(self.run.wrapping_add(shared), length as usize)
                }
            };
            writer.entry_begin(&mut nar, name.as_bytes());
            writer.file_begin(&mut nar, false, content.len() as u64);
            nar.extend_from_slice(&content);
            writer.file_end(&mut nar, content.len() as u64);
            writer.entry_end(&mut nar);
        }
        writer.directory_end(&mut nar);
        Sample {
            path: self.path(),
            references,
            nar,
        }
    }
}

impl Sample {
    /// The file and the narinfo that `nix copy` would upload.
    ///
    /// # Panics
    /// If memory cannot be compressed into.
    #[allow(clippy::expect_used)]
    pub fn upload(&self, compression: Compression) -> (Vec<u8>, NarInfo) {
        let file = match compression {
            Compression::Zstd => zstd::bulk::compress(&self.nar, 1).expect("zstd in memory"),
            _ => self.nar.clone(),
        };
        let name = Sha256::of(&file).base32();
        let narinfo = NarInfo {
            store_path: self.path.clone(),
            url: format!("nar/{name}.nar{}", compression.ending()),
            compression,
            file_hash: None,
            file_size: Some(file.len() as u64),
            nar_hash: Sha256::of(&self.nar),
            nar_size: self.nar.len() as u64,
            references: self.references.clone(),
            deriver: None,
            signatures: Vec::new(),
            ca: None,
        };
        (file, narinfo)
    }

    /// Its part of what `nix-store --import` reads.
    pub fn exported(&self) -> Vec<u8> {
        let mut out = 1_u64.to_le_bytes().to_vec();
        out.extend_from_slice(&self.nar);
        out.extend_from_slice(&0x4558_494E_u64.to_le_bytes());
        let mut string = |text: &str| {
            out.extend_from_slice(&(text.len() as u64).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
            out.resize(out.len().next_multiple_of(8), 0);
        };
        string(&format!("/nix/store/{}", self.path));
        let mut references: Vec<String> = self.references.iter().map(ToString::to_string).collect();
        references.sort();
        out.extend_from_slice(&(references.len() as u64).to_le_bytes());
        for reference in &references {
            let text = format!("/nix/store/{reference}");
            out.extend_from_slice(&(text.len() as u64).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
            out.resize(out.len().next_multiple_of(8), 0);
        }
        // No deriver, no signature.
        out.extend_from_slice(&[0; 16]);
        out
    }
}
