//! A NAR's bytes: put together on a thread of its own, handed over through a bounded channel.

use super::{
    Counters, NarStream, Source, Substituter, count,
    find::Found,
    local::{LocalChunk, LocalChunks},
    plan::Piece,
    server::ServerNar,
};
use crate::{
    error::{ClientError, Result},
    push::work::lock,
};
use crossbeam_channel::{Receiver, Sender, bounded};
use firn_chunks::{ChunkId, ChunkList};
use firn_formats::nix::StorePath;
use firn_store::{StoreError, shared::ChunkSink};
use std::{
    collections::HashSet,
    io::{self, Read},
    sync::{Arc, Mutex},
};

/// Blocks made ahead of the reader.
const BLOCKS_AHEAD: usize = 16;
/// A block is handed over when it has this size; it may be longer by a chunk.
const BLOCK_BYTES_TARGET: usize = 128 << 10;

type Block = io::Result<Vec<u8>>;

impl Substituter {
    /// Starts putting a NAR together.
    pub(super) fn stream(
        &self,
        origin: Origin,
        found: Found,
        pieces: Vec<Piece>,
    ) -> Result<NarStream> {
        let length = found.narinfo.nar_size;
        let (blocks_in, blocks) = bounded(BLOCKS_AHEAD);
        let assembly = Assembly {
            origin,
            local: Arc::clone(&self.local),
            broken: Arc::clone(&self.broken),
            source: found.source,
            path: found.narinfo.store_path,
            list: found.list,
            pieces,
            next: 0,
            scratch: Vec::new(),
            out: Output {
                blocks: blocks_in,
                block: Vec::new(),
                counters: Arc::clone(&self.counters),
            },
        };
        std::thread::Builder::new()
            .name("firn-nar".to_owned())
            .spawn(move || assembly.run())
            .map_err(|source| ClientError::io("a thread for a NAR", source))?;
        Ok(NarStream {
            length,
            reader: Box::new(BlockReader {
                blocks,
                block: io::Cursor::default(),
                rest: length,
            }),
        })
    }
}

/// What has the chunks that this machine lacks.
#[derive(Clone)]
pub(super) enum Origin {
    Stores(Arc<[Source]>),
    Server(Arc<ServerNar>),
}

impl Origin {
    /// Gives chunks of the NAR, by index and id, in order.
    fn read(
        &self,
        source: usize,
        wanted: &[(usize, ChunkId)],
        sink: &mut ChunkSink<'_>,
    ) -> Result<()> {
        match self {
            Self::Stores(sources) => {
                let ids: Vec<ChunkId> = wanted.iter().map(|(_, id)| *id).collect();
                let source = sources.get(source).ok_or_else(|| unknown(source))?;
                Ok(source.store.read_chunks(&ids, sink)?)
            }
            Self::Server(nar) => {
                let indices: Vec<usize> = wanted.iter().map(|(index, _)| *index).collect();
                nar.read(&indices, sink)
            }
        }
    }

    /// The stores, if it is those.
    fn stores(&self) -> &[Source] {
        match self {
            Self::Stores(sources) => sources,
            Self::Server(_) => &[],
        }
    }
}

/// Why an assembly does not simply go on.
enum Halt {
    /// Nobody reads on.
    Unread,
    Failed(ClientError),
    /// What was to come from this machine did not: the rest is to be asked for anew.
    Again,
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

struct Assembly {
    origin: Origin,
    local: Arc<LocalChunks>,
    broken: Arc<Mutex<HashSet<(usize, String)>>>,
    source: usize,
    path: StorePath,
    list: ChunkList,
    pieces: Vec<Piece>,
    /// The first piece that was not put out.
    next: usize,
    scratch: Vec<u8>,
    out: Output,
}

impl Assembly {
    fn run(mut self) {
        let path = self.path.absolute();
        match self.assemble() {
            Ok(()) => {
                tracing::debug!(path, "a NAR was served");
                // Soon it lies here.
                self.local.learn(&self.path, &self.list);
            }
            Err(Halt::Failed(error)) => {
                tracing::error!(
                    path,
                    error = &error as &dyn std::error::Error,
                    "a NAR breaks off"
                );
                if is_damage(&error) {
                    let hash = self.path.hash().to_string();
                    lock(&self.broken).insert((self.source, hash));
                }
                // If nobody reads on, nobody needs to be told.
                let _told = self.out.blocks.send(Err(io::Error::other(error)));
            }
            Err(Halt::Unread | Halt::Again) => {
                tracing::debug!(path, "a NAR was not read to its end");
            }
        }
    }

    fn assemble(&mut self) -> Result<(), Halt> {
        while self.next < self.pieces.len() {
            if !self.put_local()? {
                match self.put_stretch() {
                    Ok(()) | Err(Halt::Again) => {}
                    Err(halt) => return Err(halt),
                }
            }
        }
        self.out.flush()
    }

    /// Whether the next piece came from this machine. An archive that does not hold what it should is not
    /// asked again.
    fn put_local(&mut self) -> Result<bool, Halt> {
        let Some((piece, local)) = self
            .pieces
            .get(self.next)
            .and_then(|piece| Some((piece, piece.local.as_ref()?)))
        else {
            return Ok(false);
        };
        if local.read(&piece.chunk, &mut self.scratch) {
            count(
                &self.out.counters.bytes_local,
                u64::from(piece.chunk.raw_length),
            );
            self.out.put(&self.scratch)?;
            self.next += 1;
            return Ok(true);
        }
        let archive = Arc::clone(&local.archive);
        let same = |local: &LocalChunk| Arc::ptr_eq(&local.archive, &archive);
        for piece in self.pieces.iter_mut().skip(self.next) {
            if piece.local.as_ref().is_some_and(same) {
                piece.local = None;
            }
        }
        Ok(false)
    }

    /// Puts out the next piece, which a store has, and those after it up to the next of another store, in
    /// one reading.
    fn put_stretch(&mut self) -> Result<(), Halt> {
        let rest = self.pieces.get(self.next..).unwrap_or_default();
        let Some(source) = rest.first().map(|piece| piece.source) else {
            return Ok(());
        };
        let wanted: Vec<(usize, ChunkId)> = (self.next..)
            .zip(rest)
            .filter(|(_, piece)| piece.local.is_none())
            .take_while(|(_, piece)| piece.source == source)
            .map(|(index, piece)| (index, piece.chunk.id))
            .collect();
        let origin = self.origin.clone();
        let before = self.next;
        let mut halted = None;
        let read = origin.read(source, &wanted, &mut |id, bytes| {
            self.take(id, bytes).map_err(|halt| {
                halted = Some(halt);
                // Tells the store to end; nobody sees it.
                StoreError::Upload(io::ErrorKind::BrokenPipe.into())
            })
        });
        match (halted, read) {
            (Some(halt), _) => Err(halt),
            (None, Ok(())) if self.next > before => Ok(()),
            (None, Ok(())) => Err(unknown(source).into()),
            (None, Err(error)) => self.recover(source, error),
        }
    }

    /// Puts out a chunk that a store gave, after the pieces of this machine that come before it.
    fn take(&mut self, id: &ChunkId, bytes: &[u8]) -> Result<(), Halt> {
        while self.put_local()? {}
        let Some(piece) = self.pieces.get(self.next) else {
            return Err(Halt::Again);
        };
        if piece.chunk.id != *id {
            return Err(Halt::Again);
        }
        if piece.chunk.raw_length as usize != bytes.len() {
            let what = format!("chunk {id} is not as long as the list says");
            return Err(StoreError::Damaged(what).into());
        }
        self.out.put(bytes)?;
        self.next += 1;
        Ok(())
    }

    /// Takes the chunk at which a store failed from another one.
    fn recover(&mut self, failed: usize, error: ClientError) -> Result<(), Halt> {
        while self.put_local()? {}
        let Some(id) = self.pieces.get(self.next).map(|piece| piece.chunk.id) else {
            return Err(Halt::Failed(error));
        };
        let origin = self.origin.clone();
        if let Origin::Server(nar) = &origin
            && is_damage(&error)
        {
            tracing::warn!(%error, "the rest of a NAR is taken from the whole");
            return self.put_rest_of_whole(nar);
        }
        let others = origin.stores().iter().enumerate();
        for (_, other) in others.filter(|(index, _)| *index != failed) {
            let located = other.store.locate(&[id]).unwrap_or_default();
            if !located.iter().any(Option::is_some) {
                continue;
            }
            let mut halted = None;
            let read = other.store.read_chunks(&[id], &mut |id, bytes| {
                self.take(id, bytes).map_err(|halt| {
                    halted = Some(halt);
                    StoreError::Upload(io::ErrorKind::BrokenPipe.into())
                })
            });
            match (halted, read) {
                (Some(halt), _) => return Err(halt),
                (None, Ok(())) => {
                    let location = other.store.backend().location();
                    tracing::warn!(%error, location, "a chunk was taken from another store");
                    return Ok(());
                }
                (None, Err(_)) => {}
            }
        }
        Err(Halt::Failed(error))
    }
}

impl Assembly {
    /// Puts out what is still to come from the NAR as it is at the server. Later it is not asked for by chunks.
    fn put_rest_of_whole(&mut self, nar: &ServerNar) -> Result<(), Halt> {
        let hash = self.path.hash().to_string();
        lock(&self.broken).insert((self.source, hash));
        let broken = |source| Halt::Failed(ClientError::io(self.path.absolute(), source));
        let mut whole = nar.whole().map_err(Halt::Failed)?;
        let done = self.pieces.iter().take(self.next);
        let done = done.map(|piece| u64::from(piece.chunk.raw_length)).sum();
        io::copy(&mut (&mut whole).take(done), &mut io::sink()).map_err(broken)?;
        let mut block = vec![0; BLOCK_BYTES_TARGET];
        loop {
            let read = whole.read(&mut block).map_err(broken)?;
            let Some(bytes) = block.get(..read).filter(|bytes| !bytes.is_empty()) else {
                break;
            };
            self.out.put(bytes)?;
        }
        self.next = self.pieces.len();
        Ok(())
    }
}

fn unknown(source: usize) -> StoreError {
    StoreError::Damaged(format!("store {source} gave no chunk"))
}

/// Whether asking again would end the same way.
fn is_damage(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::Store(StoreError::Damaged(_) | StoreError::MissingChunks(_))
    )
}

/// Bytes on their way to the reader.
struct Output {
    blocks: Sender<Block>,
    block: Vec<u8>,
    counters: Arc<Counters>,
}

impl Output {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Halt> {
        count(&self.counters.nar_bytes, bytes.len() as u64);
        self.block.extend_from_slice(bytes);
        match self.block.len() >= BLOCK_BYTES_TARGET {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), Halt> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = std::mem::take(&mut self.block);
        self.blocks.send(Ok(block)).map_err(|_| Halt::Unread)
    }
}

/// The other end: as many bytes as were promised, or an error.
struct BlockReader {
    blocks: Receiver<Block>,
    block: io::Cursor<Vec<u8>>,
    rest: u64,
}

impl Read for BlockReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.block.read(buffer)?;
            if read > 0 || buffer.is_empty() || self.rest == 0 {
                self.rest = self.rest.saturating_sub(read as u64);
                return Ok(read);
            }
            let block = self.blocks.recv();
            self.block = io::Cursor::new(block.map_err(|_| io::ErrorKind::UnexpectedEof)??);
        }
    }
}
