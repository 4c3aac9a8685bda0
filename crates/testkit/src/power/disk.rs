//! What a disk may hold after a power cut.
//!
//! Bytes are durable once their file was synced, a name once its folder was. Of what was not, anything may be there:
//! each sector of a file as it was at any time since, its length too, and of the changes of names any of them, as
//! long as those of one file are in order. File systems promise more; programs should not rely on it.
//!
//! After a failed sync nobody writes these sectors again, though they read as if they were there: a later sync that
//! succeeds says nothing of them (Linux marks them clean). Only who writes them again can sync them.

use super::{Event, Op};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

/// The smallest unit that a disk writes as a whole.
const SECTOR: usize = 512;
/// Sectors in a page, which a kernel mostly writes as a whole.
const PAGE_SECTORS: usize = 8;

/// Numbers from a seed (splitmix64).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One below `end`; 0 if there is none.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % (end.max(1) as u64)) as usize
    }
}

/// A file, as it reads and as it may be on the disk.
#[derive(Debug, Clone, Default)]
struct File {
    /// What is durable.
    base: Vec<u8>,
    /// What a program reads.
    now: Vec<u8>,
    /// What was written to each sector since it was durable, with the time; oldest first.
    sectors: BTreeMap<usize, Sector>,
    /// Lengths since the durable one.
    lengths: Vec<(u64, usize)>,
}

#[derive(Debug, Clone, Default)]
struct Sector {
    versions: Vec<(u64, [u8; SECTOR])>,
    /// Whether a sync would write it.
    dirty: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    File(usize),
    Folder,
}

/// One change of names, in one folder.
#[derive(Debug, Clone)]
struct Change {
    time: u64,
    /// These names get what stands beside them.
    names: Vec<(PathBuf, Option<Entry>)>,
}

/// A folder on a disk whose power may be cut.
#[derive(Debug, Clone)]
pub struct Disk {
    root: PathBuf,
    time: u64,
    files: Vec<File>,
    now: BTreeMap<PathBuf, Entry>,
    durable: BTreeMap<PathBuf, Entry>,
    changes: Vec<Change>,
}

/// How the lost part is chosen.
#[derive(Debug, Clone, Copy)]
enum Lost {
    /// All that was not synced.
    All,
    /// Nothing, as if the program had been killed.
    Nothing,
    /// All after a time.
    After(u64),
    /// For each group of so many sectors, what came after a time of its own.
    Pieces(usize),
}

impl Lost {
    fn choose(random: &mut Random, now: u64) -> Self {
        match random.below(8) {
            0 => Self::All,
            1 => Self::Nothing,
            2 => Self::After(now.saturating_sub(random.below(64) as u64)),
            3 | 4 => Self::Pieces(PAGE_SECTORS),
            _ => Self::Pieces(1),
        }
    }
}

impl Disk {
    /// An empty folder, known in records as `root`.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            time: 0,
            files: Vec::new(),
            now: BTreeMap::new(),
            durable: BTreeMap::new(),
            changes: Vec::new(),
        }
    }

    /// Takes in the next line of a record.
    pub fn apply(&mut self, event: &Event) {
        self.time += 1;
        match event {
            Event::Note(_) => {}
            Event::Failed(Op::Sync(path)) => {
                if let Some(file) = self.file(path) {
                    let sectors = file.sectors.values_mut();
                    sectors.for_each(|sector| sector.dirty = false);
                }
            }
            Event::Failed(_) => {}
            Event::Done(op) => self.done(op),
        }
    }

    fn done(&mut self, op: &Op) {
        let time = self.time;
        match op {
            Op::Create { path, truncate } => {
                let there = self.now.contains_key(path);
                if !there {
                    self.files.push(File::default());
                    let made = Entry::File(self.files.len() - 1);
                    self.change(vec![(path.clone(), Some(made))]);
                } else if *truncate && let Some(file) = self.file(path) {
                    file.set_length(time, 0);
                }
            }
            Op::Write {
                path,
                offset,
                bytes,
            } => {
                if let Some(file) = self.file(path) {
                    file.write(time, *offset as usize, bytes);
                }
            }
            Op::Length(path, length) => {
                if let Some(file) = self.file(path) {
                    file.set_length(time, *length as usize);
                }
            }
            Op::Sync(path) => {
                if let Some(file) = self.file(path) {
                    file.sync();
                }
            }
            Op::Rename(from, to) => {
                assert_eq!(from.parent(), to.parent(), "a rename between folders");
                let entry = self.now.get(from).copied();
                self.change(vec![(from.clone(), None), (to.clone(), entry)]);
            }
            Op::Link(from, to) => {
                let entry = self.now.get(from).copied();
                self.change(vec![(to.clone(), entry)]);
            }
            Op::Delete(path) => self.change(vec![(path.clone(), None)]),
            Op::MakeFolder(path) => self.change(vec![(path.clone(), Some(Entry::Folder))]),
            Op::SyncFolder(folder) => {
                let (durable, rest) = std::mem::take(&mut self.changes)
                    .into_iter()
                    .partition(|change| change.folder() == Some(folder));
                self.changes = rest;
                for change in durable {
                    set(&mut self.durable, &change);
                }
            }
        }
    }

    fn file(&mut self, path: &Path) -> Option<&mut File> {
        match self.now.get(path)? {
            Entry::File(number) => self.files.get_mut(*number),
            Entry::Folder => None,
        }
    }

    fn change(&mut self, names: Vec<(PathBuf, Option<Entry>)>) {
        let time = self.time;
        let change = Change { time, names };
        set(&mut self.now, &change);
        self.changes.push(change);
    }

    /// Writes into the empty folder `to` what may be left after a cut.
    ///
    /// # Errors
    /// If that folder cannot be written.
    pub fn cut(&self, random: &mut Random, to: &Path) -> io::Result<()> {
        let names = self.names_left(random);
        let mut made = BTreeMap::new();
        for (path, entry) in &names {
            let Ok(below) = path.strip_prefix(&self.root) else {
                continue;
            };
            let target = to.join(below);
            // In order of the names a folder comes before what is in it; without it, that is lost too.
            if !target.parent().is_some_and(Path::is_dir) {
                continue;
            }
            match entry {
                Entry::Folder => std::fs::create_dir(&target)?,
                Entry::File(number) => match made.get(number) {
                    Some(first) => std::fs::hard_link::<&PathBuf, _>(first, &target)?,
                    None => {
                        let bytes = self.files[*number].left(random, self.time);
                        std::fs::write(&target, bytes)?;
                        made.insert(*number, target);
                    }
                },
            }
        }
        Ok(())
    }

    /// Of the changes of names, those of one file in order, up to any of them.
    fn names_left(&self, random: &mut Random) -> BTreeMap<PathBuf, Entry> {
        let mut names = self.durable.clone();
        let lost = Lost::choose(random, self.time);
        for group in self.groups() {
            let kept = match lost {
                Lost::All => 0,
                Lost::Nothing => group.len(),
                Lost::After(time) => group.iter().filter(|change| change.time <= time).count(),
                Lost::Pieces(_) => random.below(group.len() + 1),
            };
            for change in &group[..kept] {
                set(&mut names, change);
            }
        }
        names
    }

    /// Changes that touch the same names.
    fn groups(&self) -> Vec<Vec<&Change>> {
        let mut groups: Vec<(BTreeSet<&Path>, Vec<&Change>)> = Vec::new();
        for change in &self.changes {
            let touched: BTreeSet<&Path> = change
                .names
                .iter()
                .map(|(path, _)| path.as_path())
                .collect();
            let (mut same, rest): (Vec<_>, Vec<_>) = groups
                .into_iter()
                .partition(|(names, _)| !names.is_disjoint(&touched));
            groups = rest;
            let mut names = touched;
            let mut changes = vec![change];
            for (other, earlier) in same.drain(..) {
                names.extend(other);
                changes.extend(earlier);
            }
            changes.sort_by_key(|change| change.time);
            groups.push((names, changes));
        }
        groups.into_iter().map(|(_, changes)| changes).collect()
    }
}

impl Change {
    fn folder(&self) -> Option<&Path> {
        self.names.first().and_then(|(path, _)| path.parent())
    }
}

fn set(names: &mut BTreeMap<PathBuf, Entry>, change: &Change) {
    for (path, entry) in &change.names {
        match entry {
            Some(entry) => names.insert(path.clone(), *entry),
            None => names.remove(path),
        };
    }
}

impl File {
    fn write(&mut self, time: u64, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.now.len() < end {
            self.now.resize(end, 0);
            self.lengths.push((time, end));
        }
        self.now[offset..end].copy_from_slice(bytes);
        if !bytes.is_empty() {
            (offset / SECTOR..=(end - 1) / SECTOR).for_each(|number| self.touch(time, number));
        }
    }

    fn touch(&mut self, time: u64, number: usize) {
        let begin = number * SECTOR;
        let end = self.now.len().min(begin + SECTOR);
        let mut bytes = [0; SECTOR];
        bytes[..end - begin].copy_from_slice(&self.now[begin..end]);
        let sector = self.sectors.entry(number).or_default();
        sector.versions.push((time, bytes));
        sector.dirty = true;
    }

    fn set_length(&mut self, time: u64, length: usize) {
        self.now.resize(length, 0);
        self.lengths.push((time, length));
        if !length.is_multiple_of(SECTOR) {
            self.touch(time, length / SECTOR);
        }
    }

    fn sync(&mut self) {
        let shortest = self.lengths.iter().map(|(_, length)| *length).min();
        self.base.truncate(shortest.unwrap_or(usize::MAX));
        self.base.resize(self.now.len(), 0);
        self.lengths.clear();
        for (number, sector) in &self.sectors {
            if let (true, Some((_, bytes))) = (sector.dirty, sector.versions.last()) {
                put(&mut self.base, *number, bytes);
            }
        }
        self.sectors.retain(|_, sector| !sector.dirty);
    }

    /// What the disk may hold of it.
    fn left(&self, random: &mut Random, now: u64) -> Vec<u8> {
        let lost = Lost::choose(random, now);
        let since = |random: &mut Random| now.saturating_sub(random.below(now as usize + 1) as u64);
        let length_at = match lost {
            Lost::All => 0,
            Lost::Nothing => now,
            Lost::After(time) => time,
            Lost::Pieces(_) => match random.below(self.lengths.len() + 1) {
                0 => 0,
                number => self.lengths[number - 1].0,
            },
        };
        let mut left = self.base.clone();
        let lengths = self
            .lengths
            .iter()
            .take_while(|(time, _)| *time <= length_at);
        for (_, length) in lengths {
            left.resize(*length, 0);
        }
        let (mut group, mut time) = (usize::MAX, 0);
        for (number, sector) in &self.sectors {
            let chosen = match lost {
                Lost::All => 0,
                Lost::Nothing => sector.versions.len(),
                Lost::After(time) => sector.until(time),
                Lost::Pieces(1) => random.below(sector.versions.len() + 1),
                Lost::Pieces(sectors) => {
                    if group != number / sectors {
                        group = number / sectors;
                        // Near the end mostly: of a long record all else is long durable.
                        time = match random.below(3) {
                            0 => since(random),
                            1 => sector.versions[random.below(sector.versions.len())].0,
                            _ => 0,
                        };
                    }
                    sector.until(time)
                }
            };
            if chosen > 0 {
                put(&mut left, *number, &sector.versions[chosen - 1].1);
            }
        }
        left
    }
}

impl Sector {
    fn until(&self, time: u64) -> usize {
        self.versions
            .iter()
            .take_while(|(at, _)| *at <= time)
            .count()
    }
}

/// As much of a sector as the file is long.
fn put(file: &mut [u8], number: usize, bytes: &[u8; SECTOR]) {
    let begin = number * SECTOR;
    if begin < file.len() {
        let end = file.len().min(begin + SECTOR);
        file[begin..end].copy_from_slice(&bytes[..end - begin]);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn disk(ops: &[Event]) -> Disk {
        let mut disk = Disk::new(Path::new("/r"));
        ops.iter().for_each(|event| disk.apply(event));
        disk
    }

    fn create(name: &str) -> Event {
        Event::Done(Op::Create {
            path: format!("/r/{name}").into(),
            truncate: false,
        })
    }

    fn write(byte: u8) -> Event {
        Event::Done(Op::Write {
            path: "/r/a".into(),
            offset: 0,
            bytes: vec![byte; 2 * SECTOR],
        })
    }

    fn sync() -> Op {
        Op::Sync("/r/a".into())
    }

    fn sync_folder() -> Event {
        Event::Done(Op::SyncFolder("/r".into()))
    }

    /// All that cuts leave of `a`, in 400 of them; without it, `None`.
    fn left(disk: &Disk) -> BTreeSet<Option<Vec<u8>>> {
        let mut random = Random(1);
        (0..400)
            .map(|_| {
                let to = tempfile::tempdir().unwrap();
                disk.cut(&mut random, to.path()).unwrap();
                std::fs::read(to.path().join("a")).ok()
            })
            .collect()
    }

    #[test]
    fn what_was_synced_is_there_and_what_was_not_may_be_in_part() {
        let both = [1, 1, 2, 2].map(|byte| vec![byte; SECTOR]);
        let half = Some([both[0].clone(), both[2].clone()].concat());
        let old = Some(vec![1; 2 * SECTOR]);
        let mut ops = vec![create("a"), write(1), Event::Done(sync()), sync_folder()];
        assert_eq!(left(&disk(&ops)), BTreeSet::from([old.clone()]));
        ops.push(write(2));
        let may = left(&disk(&ops));
        assert!(
            may.len() == 4 && may.contains(&half) && may.contains(&old),
            "{may:?}"
        );
        ops.push(Event::Done(sync()));
        assert_eq!(
            left(&disk(&ops)),
            BTreeSet::from([Some(vec![2; 2 * SECTOR])])
        );
    }

    #[test]
    fn a_sync_after_a_failed_one_says_nothing_until_it_is_written_again() {
        let mut ops = vec![create("a"), write(1), Event::Done(sync()), sync_folder()];
        ops.extend([write(2), Event::Failed(sync()), Event::Done(sync())]);
        assert_eq!(left(&disk(&ops)).len(), 4);
        ops.extend([write(2), Event::Done(sync())]);
        assert_eq!(
            left(&disk(&ops)),
            BTreeSet::from([Some(vec![2; 2 * SECTOR])])
        );
    }

    #[test]
    fn a_name_is_there_once_its_folder_is_synced() {
        let mut ops = vec![
            create("b"),
            Event::Done(Op::Rename("/r/b".into(), "/r/a".into())),
        ];
        assert_eq!(left(&disk(&ops)), BTreeSet::from([None, Some(Vec::new())]));
        ops.push(sync_folder());
        assert_eq!(left(&disk(&ops)), BTreeSet::from([Some(Vec::new())]));
        ops.push(Event::Done(Op::Delete("/r/a".into())));
        assert_eq!(left(&disk(&ops)), BTreeSet::from([None, Some(Vec::new())]));
    }
}
