//! A backend that fails, is cut off or lies at a chosen step, and counts what it is asked.

use firn_store::StoreError;
use firn_store::shared::{Backend, PackFile, SegmentTimes, StoredPack};
use std::fs::File;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What goes wrong. Steps count from 0, over all calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call at this step fails and does nothing.
    Fail(u64),
    /// The call at this step is done, but its answer is lost; so is all that comes after.
    Cut(u64),
    /// In the bytes that the call at this step gives, one bit is wrong (counted modulo their length).
    Flip {
        /// The step.
        step: u64,
        /// The bit.
        bit: usize,
    },
}

/// The operations of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Call {
    Segments,
    SegmentTimes,
    Segment,
    PutPack,
    Publish,
    Read,
    Packs,
    DeletePack,
    DeleteSegment,
}

/// Passes everything on, but for the fault.
#[derive(Debug)]
pub struct FaultyBackend {
    inner: Arc<dyn Backend>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    fault: Option<Fault>,
    calls: Vec<Call>,
    cut: bool,
}

impl FaultyBackend {
    /// Without a fault: it only counts.
    pub fn new(inner: Arc<dyn Backend>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to count anew, with another fault or none.
    pub fn set(&self, fault: Option<Fault>) {
        *self.state() = State {
            fault,
            ..State::default()
        };
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// How often an operation was called.
    pub fn count(&self, call: Call) -> usize {
        let state = self.state();
        state.calls.iter().filter(|made| **made == call).count()
    }

    fn broken(&self, what: &str) -> StoreError {
        StoreError::Backend {
            location: self.inner.location().to_owned(),
            what: what.to_owned(),
            source: Arc::new(std::io::Error::other("a fault that was asked for")),
        }
    }

    fn run<T>(
        &self,
        call: Call,
        inner: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<(T, Option<usize>), StoreError> {
        let (step, fault, cut) = {
            let mut state = self.state();
            state.calls.push(call);
            (state.calls.len() as u64 - 1, state.fault, state.cut)
        };
        if cut {
            return Err(self.broken("cut off"));
        }
        match fault {
            Some(Fault::Fail(at)) if at == step => Err(self.broken("failed")),
            Some(Fault::Cut(at)) if at == step => {
                // Done or not: who called cannot know.
                let _ = inner();
                self.state().cut = true;
                Err(self.broken("cut off"))
            }
            Some(Fault::Flip { step: at, bit }) if at == step => Ok((inner()?, Some(bit))),
            _ => Ok((inner()?, None)),
        }
    }
}

fn flip(bytes: &mut [u8], bit: Option<usize>) {
    if let Some(bit) = bit
        && !bytes.is_empty()
    {
        let at = bit % (bytes.len() * 8);
        bytes[at / 8] ^= 1 << (at % 8);
    }
}

impl Backend for FaultyBackend {
    fn location(&self) -> &str {
        self.inner.location()
    }
    fn segments(&self) -> Result<Vec<String>, StoreError> {
        let (names, _) = self.run(Call::Segments, || self.inner.segments())?;
        Ok(names)
    }
    fn segment_times(&self) -> Result<SegmentTimes, StoreError> {
        let (times, _) = self.run(Call::SegmentTimes, || self.inner.segment_times())?;
        Ok(times)
    }
    fn segment(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let (mut bytes, bit) = self.run(Call::Segment, || self.inner.segment(name))?;
        if let Some(bytes) = &mut bytes {
            flip(bytes, bit);
        }
        Ok(bytes)
    }
    fn put_pack(&self, file: &File, length: u64) -> Result<StoredPack, StoreError> {
        let (pack, _) = self.run(Call::PutPack, || self.inner.put_pack(file, length))?;
        Ok(pack)
    }
    fn publish(&self, at: u64, segment: &[u8], packs: &[StoredPack]) -> Result<String, StoreError> {
        let (name, _) = self.run(Call::Publish, || self.inner.publish(at, segment, packs))?;
        Ok(name)
    }
    fn read(&self, pack: &str, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let (mut bytes, bit) = self.run(Call::Read, || self.inner.read(pack, range))?;
        flip(&mut bytes, bit);
        Ok(bytes)
    }
    fn packs(&self) -> Result<Option<Vec<PackFile>>, StoreError> {
        let (packs, _) = self.run(Call::Packs, || self.inner.packs())?;
        Ok(packs)
    }
    fn delete_pack(&self, name: &str) -> Result<(), StoreError> {
        let ((), _) = self.run(Call::DeletePack, || self.inner.delete_pack(name))?;
        Ok(())
    }
    fn delete_segment(&self, name: &str) -> Result<(), StoreError> {
        let ((), _) = self.run(Call::DeleteSegment, || self.inner.delete_segment(name))?;
        Ok(())
    }
    fn requests(&self) -> u64 {
        self.inner.requests()
    }
}
