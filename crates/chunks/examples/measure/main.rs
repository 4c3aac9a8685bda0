//! Measures bounds, threshold, level and reference cuts on real closures; `docs/chunking.md`
//! has the results.
//!
//! ```text
//! cargo run --release -p firn-chunks --example measure -- ROOT [REVISION...]
//! ```
//! ROOT and each REVISION are store paths (or links to them). For each set of parameters it
//! prints the frames of the NARs of ROOT's closure, what a layer for each of its paths adds to
//! them, and what the NARs of each REVISION's closure add to those of ROOT's alone.
//! Speeds are of one thread: chunking with reading from the page cache; BLAKE3; zstd.
//! Each set is measured by itself; `PARAMS=4/16/64/256/4:2,…` (KiB: threshold, min, avg, max,
//! reference distance; level) chooses them.

mod tree;

use firn_chunks::{ChunkId, Chunker, Encoder, boundaries::Params};
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tree::Node;

const DEFAULT_PARAMS: &str = "4/16/64/256/4:1,4/16/64/256/4:2,4/16/64/256/4:3,\
    4/16/64/256/0:2,4/32/128/512/4:1,4/32/128/512/4:2,4/8/32/128/4:2,32/16/64/256/4:2";

type Closure = Vec<(PathBuf, Node)>;
type Fault = Box<dyn std::error::Error>;

fn main() -> Result<(), Fault> {
    let closures = std::env::args()
        .skip(1)
        .map(|root| closure(&root))
        .collect::<Result<Vec<Closure>, Fault>>()?;
    let Some((base, revisions)) = closures.split_first() else {
        return Err("usage: measure ROOT [REVISION...]".into());
    };
    let sets = std::env::var("PARAMS").unwrap_or_else(|_| DEFAULT_PARAMS.to_owned());
    println!("{}\n", memory_speeds());
    println!(
        "| bounds, level | NAR | frames of the NARs | layers add | revisions add | unique chunks | chunking | BLAKE3 | zstd |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for set in sets.split(',') {
        let params = parse(set).ok_or_else(|| format!("not a set of parameters: {set}"))?;
        measure(set, params, base, revisions)?;
    }
    Ok(())
}

/// Speed of cutting alone: 64 MiB of noise in memory, best of five.
fn memory_speeds() -> String {
    let mut noise = vec![0; 64 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let best = |as_file: bool| {
        let once = || {
            let start = Instant::now();
            let mut chunker = Chunker::new(firn_chunks::boundaries::V1);
            if as_file {
                chunker.file_begin(noise.len() as u64, &mut |_| {});
                chunker.file(&noise, &mut |_| {});
            } else {
                chunker.glue(&noise, &mut |_| {});
            }
            chunker.finish(&mut |_| {});
            noise.len() as f64 / 1e6 / start.elapsed().as_secs_f64()
        };
        (0..5).map(|_| once()).fold(0.0, f64::max)
    };
    let (file, glue) = (best(true), best(false));
    format!("In memory: file with references {file:.0} MB/s, glue {glue:.0} MB/s")
}

fn parse(set: &str) -> Option<Params> {
    let (bounds, level) = set.split_once(':')?;
    let numbers: Vec<usize> = bounds
        .split('/')
        .map(|n| n.parse().ok())
        .collect::<Option<_>>()?;
    let &[threshold, min, avg, max, distance] = numbers.as_slice() else {
        return None;
    };
    Some(Params {
        file_bytes_min: threshold << 10,
        chunk_bytes_min: min << 10,
        chunk_bytes_avg: avg << 10,
        chunk_bytes_max: max << 10,
        reference_distance_bytes: distance << 10,
        zstd_level: level.parse().ok()?,
    })
}

fn closure(root: &str) -> Result<Closure, Fault> {
    let root = std::fs::canonicalize(root)?;
    let output = std::process::Command::new("nix-store")
        .arg("-qR")
        .arg(root)
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let paths = String::from_utf8(output.stdout)?;
    let read = |path: &str| Ok((PathBuf::from(path), tree::read(path.as_ref())?));
    paths.lines().map(read).collect()
}

/// Frames known so far, and the time their making took.
struct Store {
    frames: HashMap<ChunkId, usize>,
    encoder: Encoder,
    stored_bytes: u64,
    hashing: Duration,
    encoding: Duration,
    encoded_bytes: u64,
}

impl Store {
    fn add(&mut self, chunk: &[u8]) {
        let start = Instant::now();
        let id = ChunkId::of(chunk);
        let hashed = Instant::now();
        self.hashing += hashed - start;
        if self.frames.contains_key(&id) {
            return;
        }
        let length = self.encoder.encode_with_id(id, chunk).frame().len();
        self.encoding += hashed.elapsed();
        self.encoded_bytes += chunk.len() as u64;
        self.stored_bytes += length as u64;
        self.frames.insert(id, length);
    }

    fn add_nars(&mut self, closure: &Closure, params: Params) -> io::Result<u64> {
        let mut total = 0;
        for (_, node) in closure {
            let mut chunker = Chunker::new(params);
            let mut sink = |chunk: &[u8]| {
                total += chunk.len() as u64;
                self.add(chunk);
            };
            tree::nar(node, &mut chunker, &mut sink)?;
            chunker.finish(&mut sink);
        }
        Ok(total)
    }

    fn add_layers(&mut self, closure: &Closure, params: Params) -> io::Result<()> {
        for (path, node) in closure {
            let inside = path.to_string_lossy();
            let mut chunker = Chunker::new(params);
            let mut sink = |chunk: &[u8]| self.add(chunk);
            tree::layer(
                inside.trim_start_matches('/').as_bytes(),
                node,
                &mut chunker,
                &mut sink,
            )?;
            chunker.finish(&mut sink);
        }
        Ok(())
    }
}

fn measure(name: &str, params: Params, base: &Closure, revisions: &[Closure]) -> io::Result<()> {
    let mut store = Store {
        frames: HashMap::new(),
        encoder: Encoder::new(params.zstd_level),
        stored_bytes: 0,
        hashing: Duration::ZERO,
        encoding: Duration::ZERO,
        encoded_bytes: 0,
    };
    let start = Instant::now();
    for (_, node) in base {
        let mut chunker = Chunker::new(params);
        tree::nar(node, &mut chunker, &mut |_| {})?;
        chunker.finish(&mut |_| {});
    }
    let chunking = start.elapsed();
    let total = store.add_nars(base, params)?;
    let (frames, unique) = (store.stored_bytes, store.frames.len());
    let speeds = [
        (total, chunking),
        (total, store.hashing),
        (store.encoded_bytes, store.encoding),
    ]
    .map(|(bytes, time)| format!("{:.0} MB/s", bytes as f64 / 1e6 / time.as_secs_f64()));
    let known = store.frames.clone();
    let mut added = Vec::new();
    for revision in revisions {
        let before = store.stored_bytes;
        store.add_nars(revision, params)?;
        added.push(format!("{:.3}", (store.stored_bytes - before) as f64 / 1e6));
        store.frames.clone_from(&known);
    }
    let before = store.stored_bytes;
    store.add_layers(base, params)?;
    println!(
        "| {name} | {:.1} MB | {:.1} MB | {:.2} MB | {} MB | {unique} | {} |",
        total as f64 / 1e6,
        frames as f64 / 1e6,
        (store.stored_bytes - before) as f64 / 1e6,
        added.join(" / "),
        speeds.join(" | ")
    );
    Ok(())
}
