//! Contents that nothing needs which the image starts.
//!
//! What is started: the entrypoint, the command, the health check, and what the environment names. A word of these
//! is a store path, a file at the image's root (which is one of a content's files), or the name of a program in a
//! content's `bin`. What is started is read: a script's words count likewise, and in a program the name of another
//! content's program counts where it stands by itself, or anywhere if it is long and its package is called so. All
//! that these refer to, directly or not, is needed. The rest of the contents is not, but for data that is found
//! by convention, such as certificates in `etc`.
//!
//! Contents are the roots; of a root that is a farm of links, what it links to.

use super::{
    Check, Found,
    walk::{Place, walk},
};
use crate::{closure::Closure, plan::name_key};
use firn_formats::{
    nix::{StorePath, store_path::STORE_DIR},
    oci::config::Config,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

const BIN_FOLDERS: [&str; 4] = ["bin", "sbin", "usr/bin", "usr/sbin"];
/// Data that programs look for by convention.
const DATA_FOLDERS: [&str; 5] = [
    "etc",
    "share/zoneinfo",
    "share/fonts",
    "share/locale",
    "lib/locale",
];
/// So much of a program is read.
const PROGRAM_BYTES_MAX: u64 = 64 << 20;
/// So many programs are.
const PROGRAMS_MAX: usize = 200;
/// Entries of a root that are looked at to tell whether it is a farm of links.
const FARM_ENTRIES_MAX: usize = 5_000;
/// Names so long do not stand in a program by chance.
const TELLING_NAME: usize = 6;

/// What the image starts, and which contents are not needed for it.
pub(super) struct Started {
    pub(super) needed: BTreeSet<StorePath>,
    pub(super) unused: Vec<Found>,
}

/// Judges the contents, or says why that cannot be done.
pub(super) fn judge(
    store_dir: &Path,
    closure: &Closure,
    config: &Config,
) -> Result<Started, String> {
    let words = words_of(config);
    if config.entrypoint.as_ref().is_none_or(Vec::is_empty)
        && config.cmd.as_ref().is_none_or(Vec::is_empty)
    {
        return Err(
            "there is no entrypoint and no command, so what is unused cannot be told".to_owned(),
        );
    }
    let mut search = Search::new(store_dir, closure);
    for word in &words {
        search.word(word);
    }
    search.read_programs();
    if search.needed.is_empty() {
        let started = words.first().map_or("", String::as_str);
        return Err(format!(
            "nothing of the closure is started by {started:?}, so what is unused cannot be told"
        ));
    }
    let needed = reach(closure, &search.needed);
    let index = closure.index();
    let contents = search
        .contents
        .iter()
        .filter_map(|path| index.get(path).copied());
    let unneeded = contents
        .filter(|path| !needed.contains(path) && !search.is_data(&closure.paths[*path].path));
    let why = "nothing that the image starts refers to it or names it";
    let unused = unneeded.map(|path| (path, Check::Unused, why.to_owned()));
    let unused = unused.collect();
    Ok(Started {
        unused,
        needed: search.needed,
    })
}

/// Entrypoint and command first.
fn words_of(config: &Config) -> Vec<String> {
    let lists = [&config.entrypoint, &config.cmd]
        .into_iter()
        .flatten()
        .flatten();
    let health = config
        .healthcheck
        .iter()
        .flat_map(|health| health.test.iter().skip(1));
    let values = config
        .env
        .iter()
        .filter_map(|entry| entry.split_once('=').map(|(_, value)| value));
    let texts = lists.chain(health).map(String::as_str).chain(values);
    texts.flat_map(words).map(str::to_owned).collect()
}

/// Names and paths in a line of a shell.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let part =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '+' | '-' | '?');
    text.split(move |c: char| !part(c))
        .filter(|word| !word.is_empty())
}

fn reach(closure: &Closure, from: &BTreeSet<StorePath>) -> BTreeSet<usize> {
    let index = closure.index();
    let dependencies = closure.dependencies();
    let mut open: Vec<usize> = from
        .iter()
        .filter_map(|path| index.get(path).copied())
        .collect();
    let mut seen = BTreeSet::new();
    while let Some(path) = open.pop() {
        if seen.insert(path) {
            open.extend(&dependencies[path]);
        }
    }
    seen
}

struct Search<'a> {
    store_dir: &'a Path,
    known: BTreeSet<&'a StorePath>,
    roots: Vec<StorePath>,
    contents: BTreeSet<StorePath>,
    /// Programs of the contents by their names, the first root's.
    programs: BTreeMap<String, Place>,
    needed: BTreeSet<StorePath>,
    open: Vec<Place>,
    read: BTreeSet<Place>,
}

impl<'a> Search<'a> {
    fn new(store_dir: &'a Path, closure: &'a Closure) -> Self {
        let index = closure.index();
        let roots: Vec<StorePath> = super::roots(closure)
            .into_iter()
            .map(|i| closure.paths[i].path.clone())
            .collect();
        let mut contents = BTreeSet::new();
        for root in &roots {
            if is_farm(store_dir, root) {
                let references = index.get(root).map(|&i| &closure.paths[i].references);
                contents.extend(
                    references
                        .into_iter()
                        .flatten()
                        .filter(|path| *path != root)
                        .cloned(),
                );
            } else {
                contents.insert(root.clone());
            }
        }
        let mut search = Self {
            store_dir,
            known: index.keys().copied().collect(),
            roots,
            contents,
            programs: BTreeMap::new(),
            needed: BTreeSet::new(),
            open: Vec::new(),
            read: BTreeSet::new(),
        };
        search.find_programs();
        search
    }

    /// Where links lead to counts: a farm's programs are those of its contents.
    fn find_programs(&mut self) {
        let owners: Vec<StorePath> = self.roots.iter().chain(&self.contents).cloned().collect();
        for (root, folder) in owners
            .iter()
            .flat_map(|root| BIN_FOLDERS.map(|bin| (root, bin)))
        {
            let place = Place {
                path: root.clone(),
                file: PathBuf::from(folder),
            };
            let Some(place) = place.resolve(self.store_dir) else {
                continue;
            };
            let entries = fs::read_dir(place.local(self.store_dir))
                .into_iter()
                .flatten();
            let names = entries
                .flatten()
                .map(|entry| entry.file_name().into_string());
            for name in names.flatten() {
                let program = Place {
                    path: place.path.clone(),
                    file: place.file.join(&name),
                };
                let real = program.resolve(self.store_dir);
                self.programs.entry(name).or_insert(real.unwrap_or(program));
            }
        }
    }

    /// Takes what a word names as needed, and as something to read.
    fn word(&mut self, word: &str) {
        if let Some(at) = word.find(STORE_DIR) {
            if let Some(place) = Place::parse(Path::new(&word[at..])) {
                self.need(place);
            }
        } else if let Some(file) = word.strip_prefix('/') {
            let places = self.roots.iter().map(|root| Place {
                path: root.clone(),
                file: PathBuf::from(file),
            });
            let found = places
                .filter(|_| !file.is_empty())
                .find(|place| place.resolve(self.store_dir).is_some());
            found.into_iter().for_each(|place| self.need(place));
        } else if let Some(place) = self.programs.get(word).cloned() {
            self.need(place);
        }
    }

    fn need(&mut self, place: Place) {
        let real = place.resolve(self.store_dir).unwrap_or(place);
        if self.known.contains(&real.path) {
            self.needed.insert(real.path.clone());
            if !self.read.contains(&real) {
                self.open.push(real);
            }
        }
    }

    fn read_programs(&mut self) {
        while let Some(place) = self.open.pop() {
            if self.read.len() >= PROGRAMS_MAX || !self.read.insert(place.clone()) {
                continue;
            }
            let Some(bytes) = read(&place.local(self.store_dir)) else {
                continue;
            };
            match bytes.starts_with(b"#!") {
                true => {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    words(&text).for_each(|word| self.word(word));
                }
                false => self.names_in(&bytes),
            }
        }
    }

    /// Programs of other contents that a program's bytes name.
    fn names_in(&mut self, bytes: &[u8]) {
        let alone: BTreeSet<&[u8]> = bytes
            .split(|byte| *byte == 0)
            .filter(|text| text.len() < 256)
            .collect();
        let is_named = |name: &str, place: &Place| {
            let known = self.needed.contains(&place.path);
            let telling = || name.len() >= TELLING_NAME && is_called(&place.path, name);
            !known
                && (alone.contains(name.as_bytes())
                    || telling() && contains(bytes, name.as_bytes()))
        };
        let named = self
            .programs
            .iter()
            .filter(|(name, place)| is_named(name, place));
        let named: Vec<Place> = named.map(|(_, place)| place.clone()).collect();
        named.into_iter().for_each(|place| self.need(place));
    }

    /// Whether a path has nothing to run, but something that is found by convention.
    fn is_data(&self, path: &StorePath) -> bool {
        let has = |folder: &str| self.store_dir.join(path.to_string()).join(folder).exists();
        !BIN_FOLDERS.iter().any(|folder| has(folder))
            && DATA_FOLDERS.iter().any(|folder| has(folder))
    }
}

/// The beginning of a file; none of what is no file.
fn read(file: &Path) -> Option<Vec<u8>> {
    if !fs::metadata(file).ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    let open = fs::File::open(file).ok()?;
    open.take(PROGRAM_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Whether a package is called as its program is: `ffmpeg-full` and `ffmpeg`, `python` and `python3.11`.
fn is_called(path: &StorePath, program: &str) -> bool {
    let key = name_key(path.name());
    key.contains(program)
        || key
            .split('-')
            .next()
            .is_some_and(|first| program.contains(first))
}

fn contains(bytes: &[u8], name: &[u8]) -> bool {
    bytes.windows(name.len()).any(|window| window == name)
}

/// Whether a root has nothing but links into other store paths.
fn is_farm(store_dir: &Path, root: &StorePath) -> bool {
    let top = store_dir.join(root.to_string());
    let (mut links, mut entries, mut others) = (0, 0, false);
    let mut visit = |file: &Path, metadata: &fs::Metadata| {
        entries += 1;
        let target = || fs::read_link(top.join(file)).ok();
        let leads_away =
            metadata.is_symlink() && target().is_some_and(|target| target.is_absolute());
        links += usize::from(leads_away);
        others |= !leads_away && !file.starts_with("nix-support");
        !others && entries < FARM_ENTRIES_MAX
    };
    top.is_dir() && walk(&top, &mut visit).is_ok() && links > 0 && !others
}
