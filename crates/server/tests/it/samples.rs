//! NARs and narinfos made here.

use firn_formats::Sha256;
use firn_formats::nix::nar::Writer;
use firn_formats::nix::rewrap::{Encoder, Format};
use firn_formats::nix::{Compression, NarInfo, StorePath, base32};
pub use firn_testkit::noise;
use std::io::Write as _;

/// A NAR of one file.
pub fn file_nar(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer.directory_begin(&mut out);
    writer.entry_begin(&mut out, b"data");
    writer.file_begin(&mut out, false, content.len() as u64);
    out.extend_from_slice(content);
    writer.file_end(&mut out, content.len() as u64);
    writer.entry_end(&mut out);
    writer.directory_end(&mut out);
    out
}

/// A store path whose hash part is made of `seed`.
pub fn store_path(seed: &str, name: &str) -> StorePath {
    let digest = Sha256::of(seed.as_bytes());
    let hash = base32::encode(&digest.0[..20]);
    StorePath::parse_base_name(&format!("{hash}-{name}")).unwrap()
}

/// What `nix copy` uploads of a path.
pub struct Upload {
    pub path: StorePath,
    pub nar: Vec<u8>,
    pub file: Vec<u8>,
    pub narinfo: NarInfo,
}

pub fn compressed(nar: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::None => nar.to_vec(),
        Compression::Zstd => zstd::bulk::compress(nar, 1).unwrap(),
        Compression::Xz => {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
            encoder.write_all(nar).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(nar).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Bzip2 => {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            encoder.write_all(nar).unwrap();
            encoder.finish().unwrap()
        }
        // Stored blocks; Nix's own brotli is tested with Nix.
        Compression::Brotli => {
            let mut out = Vec::new();
            let mut encoder = Encoder::new(Format::Brotli, nar.len() as u64);
            encoder.push(nar, &mut out).unwrap();
            encoder.finish(&mut out).unwrap();
            out
        }
        Compression::Lz4 => panic!("no sample in lz4"),
    }
}

impl Upload {
    pub fn new(
        name: &str,
        content: &[u8],
        references: &[&StorePath],
        compression: Compression,
    ) -> Self {
        let path = store_path(name, name);
        let nar = file_nar(content);
        let file = compressed(&nar, compression);
        let file_hash = Sha256::of(&file);
        // As Nix names it.
        let ending = match compression {
            Compression::Gzip => "",
            other => other.ending(),
        };
        let narinfo = NarInfo {
            store_path: path.clone(),
            url: format!("nar/{}.nar{ending}", file_hash.base32()),
            compression,
            file_hash: None,
            file_size: Some(file.len() as u64),
            nar_hash: Sha256::of(&nar),
            nar_size: nar.len() as u64,
            references: references.iter().map(|&path| path.clone()).collect(),
            deriver: None,
            signatures: Vec::new(),
            ca: None,
        };
        Self {
            path,
            nar,
            file,
            narinfo,
        }
    }

    pub fn narinfo_path(&self) -> String {
        format!("/main/{}.narinfo", self.path.hash())
    }
    pub fn nar_path(&self) -> String {
        format!("/main/{}", self.narinfo.url)
    }

    /// PUTs both; the narinfo's answer.
    pub fn push(&self, client: &crate::http::Client) -> crate::http::Answer {
        let put = client.put(&self.nar_path(), &self.file);
        assert!(matches!(put.status, 200 | 201), "{}", put.text());
        client.put(&self.narinfo_path(), self.narinfo.to_string().as_bytes())
    }
}
