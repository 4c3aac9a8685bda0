//! Checking a store without a server: what its segments say, against what its place has.

use super::read::{decode_one, range_of};
use super::{Inner, Located, SharedEntry};
use crate::check::Findings;
use crate::types::DomainId;
use crate::{CheckReport, FindingKind, Meaning, StoreError};
use firn_chunks::{ChunkId, segment};
use std::collections::HashMap;
use std::sync::Arc;

/// The one domain.
const DOMAIN: DomainId = DomainId(0);
/// Bytes of frames read in one request.
const REQUEST_BYTES_MAX: u64 = 4 << 20;

/// Says what an entry means: given its cache.
pub type ExplainShared<'a> = &'a dyn Fn(&str, &SharedEntry) -> Meaning;

/// Part N of T of a store's packs. Which part a pack is in is in its name, so that packs that come and go move
/// no other into a part that was read already.
pub type PackPart = (u32, u32);

fn is_in(part: PackPart, pack: &str) -> bool {
    let [first, second, third, fourth, ..] = ChunkId::of(pack.as_bytes()).0;
    u32::from_le_bytes([first, second, third, fourth]) % part.1.max(1) + 1 == part.0
}

/// See [`super::SharedStore::check`].
pub(super) fn check(
    inner: &Inner,
    data: Option<PackPart>,
    explain: ExplainShared<'_>,
    told: &mut dyn FnMut(u64),
) -> Result<CheckReport, StoreError> {
    let mut found = Findings::default();
    segments(inner, &mut found)?;
    let packs = packs(inner, &mut found)?;
    for (pack, finding) in packs {
        let frames = inner.index.frames_of(&pack)?;
        found.report.chunks += frames.len() as u64;
        let data = data.is_some_and(|part| is_in(part, &pack));
        frames_of(inner, &frames, finding, data, told, &mut found)?;
    }
    blobs(inner, &mut found)?;
    entries(inner, explain, &mut found)?;
    Ok(found.report)
}

/// Segments that are listed and were not taken in.
fn segments(inner: &Inner, found: &mut Findings) -> Result<(), StoreError> {
    let known = inner.index.known()?;
    for name in inner.backend.segments()? {
        found.report.segments += 1;
        if known.contains(&name) {
            continue;
        }
        // One that another covers is not read; one that is gone meanwhile needs nothing.
        let Some(bytes) = inner.backend.segment(&name)? else {
            continue;
        };
        if let Err(error) = segment::decode(&bytes) {
            found.add(
                FindingKind::Segment,
                name,
                format!("it cannot be read: {error}"),
            );
        }
    }
    Ok(())
}

/// A pack, and the finding that says that it is lost.
type NamedPack = (Arc<str>, Option<usize>);

/// The packs that segments name.
fn packs(inner: &Inner, found: &mut Findings) -> Result<Vec<NamedPack>, StoreError> {
    let listed: Option<HashMap<String, u64>> = inner.backend.packs()?.map(|packs| {
        let lengths = packs.into_iter().map(|pack| (pack.name, pack.length));
        lengths.collect()
    });
    let mut all = Vec::new();
    let mut names: Vec<String> = inner.index.pack_names()?.into_iter().collect();
    names.sort_unstable();
    for name in names {
        let Some(pack) = inner.index.pack(&name)? else {
            continue;
        };
        found.report.packs += 1;
        let wrong = match &listed {
            Some(listed) => match listed.get(&name) {
                None => Some((FindingKind::PackLost, "it is not here".to_owned())),
                Some(length) if *length != pack.length => {
                    let detail = format!(
                        "it has {length} bytes, and the segments say {}",
                        pack.length
                    );
                    Some((FindingKind::PackLength, detail))
                }
                Some(_) => None,
            },
            // A registry does not list: its last byte is asked for.
            None => {
                let last = pack.length.saturating_sub(1)..pack.length;
                let read = inner.backend.read(&name, last);
                read.err()
                    .map(|error| (FindingKind::PackLost, error.to_string()))
            }
        };
        let finding = wrong.map(|(kind, detail)| found.add(kind, format!("pack {name}"), detail));
        all.push((name.into(), finding));
    }
    Ok(all)
}

fn frames_of(
    inner: &Inner,
    frames: &[Located],
    lost: Option<usize>,
    data: bool,
    told: &mut dyn FnMut(u64),
    found: &mut Findings,
) -> Result<(), StoreError> {
    if let Some(finding) = lost {
        for frame in frames {
            found
                .chunks
                .insert((DOMAIN, frame.placed.record.id), finding);
        }
        return Ok(());
    }
    if !data {
        return Ok(());
    }
    let mut rest = frames;
    while let Some(first) = rest.first() {
        let start = range_of(first).start;
        let fits = rest
            .iter()
            .take_while(|frame| range_of(frame).end.saturating_sub(start) <= REQUEST_BYTES_MAX)
            .count()
            .max(1);
        let (batch, after) = rest.split_at(fits);
        rest = after;
        let end = batch
            .iter()
            .map(|frame| range_of(frame).end)
            .max()
            .unwrap_or(start);
        let bytes = inner.backend.read(&first.pack, start..end);
        told(end - start);
        found.report.bytes_read += end - start;
        found.report.chunks_read += batch.len() as u64;
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => {
                let subject = format!("pack {}", first.pack);
                let detail = format!("bytes {start} to {end} cannot be read: {error}");
                let finding = found.add(FindingKind::PackLength, subject, detail);
                for frame in batch {
                    found
                        .chunks
                        .insert((DOMAIN, frame.placed.record.id), finding);
                }
                continue;
            }
        };
        for frame in batch {
            let range = range_of(frame);
            let place = (range.start - start) as usize..(range.end - start) as usize;
            let held = bytes.get(place).unwrap_or_default();
            if decode_one(frame, held).is_err() {
                let id = frame.placed.record.id;
                let detail = format!(
                    "its frame at byte {} of pack {} is damaged",
                    range.start, frame.pack
                );
                let finding = found.add(FindingKind::ChunkDamaged, format!("chunk {id}"), detail);
                found.chunks.insert((DOMAIN, id), finding);
            }
        }
    }
    Ok(())
}

/// Each chunk of each blob must lie somewhere.
fn blobs(inner: &Inner, found: &mut Findings) -> Result<(), StoreError> {
    for (row, list) in inner.index.blob_rows()? {
        found.report.blobs += 1;
        let Some(blob) = inner.index.blob(&list)? else {
            continue;
        };
        let ids: Vec<_> = blob.list.chunks.iter().map(|chunk| chunk.id).collect();
        for (id, located) in ids.iter().zip(inner.index.locate(&ids)?) {
            let finding = match (found.chunks.get(&(DOMAIN, *id)).copied(), located) {
                (Some(finding), _) => finding,
                (None, Some(_)) => continue,
                (None, None) => {
                    let finding = found.add(
                        FindingKind::Blob,
                        format!("blob {}", row),
                        format!("chunk {id} is not here"),
                    );
                    found.chunks.insert((DOMAIN, *id), finding);
                    finding
                }
            };
            let findings = found.blobs.entry(row).or_default();
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
    }
    Ok(())
}

fn entries(
    inner: &Inner,
    explain: ExplainShared<'_>,
    found: &mut Findings,
) -> Result<(), StoreError> {
    let rows: HashMap<_, _> = inner
        .index
        .blob_rows()?
        .into_iter()
        .map(|(row, list)| (list, row))
        .collect();
    for (cache, entry) in inner.index.all_entries()? {
        found.report.entries += 1;
        let meaning = explain(&cache, &entry);
        let subject = meaning
            .name
            .clone()
            .unwrap_or_else(|| format!("{:?} {} in {cache}", entry.kind, entry.key));
        for fault in &meaning.faults {
            found.add(FindingKind::Entry, &subject, fault);
        }
        let mut broken = Vec::new();
        for list in &entry.blobs {
            match rows.get(list) {
                Some(row) => broken.extend(found.blobs.get(row).into_iter().flatten().copied()),
                None => {
                    found.add(
                        FindingKind::Reference,
                        &subject,
                        "a blob that it names is not here",
                    );
                }
            }
        }
        broken.sort_unstable();
        broken.dedup();
        for finding in broken {
            found.breaks(finding, &subject);
        }
    }
    Ok(())
}
