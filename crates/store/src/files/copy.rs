//! Files of one folder in another: for backups.

use super::Folder;
use super::steps::{Step, step};
use crate::StoreError;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;

/// How a file came into the other folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copied {
    /// It was there, with the same length.
    There,
    /// Both folders name the same bytes.
    Linked,
    /// So many bytes were copied.
    Written(u64),
}

impl Folder {
    /// Brings a file here from another folder, durably: all of it, or its first `length` bytes. `None` if it is not
    /// there. With `link` both folders then name the same bytes, if they can; only for a file that never
    /// changes again.
    pub(crate) fn bring(
        &self,
        from: &Self,
        key: &str,
        length: Option<u64>,
        link: bool,
    ) -> Result<Option<Copied>, StoreError> {
        let Some(held) = from.length(key)? else {
            return Ok(None);
        };
        let wanted = length.unwrap_or(held);
        if self.length(key)? == Some(wanted) {
            return Ok(Some(Copied::There));
        }
        self.make_parents(key)?;
        let temporary = format!("{key}.tmp");
        self.delete(&temporary)?;
        let (source, target) = (from.path(key), self.path(&temporary));
        let linked = || {
            step(Step::Link(&source, &target), || {
                fs::hard_link(&source, &target)
            })
        };
        if link && linked().is_ok() {
            self.rename(&temporary, key)?;
            return Ok(Some(Copied::Linked));
        }
        self.bring_over(from, key, wanted)
            .map(|copied| copied.map(Copied::Written))
    }

    /// Brings a small file here that may have changed, whatever is here: in its place at once, so that there is one
    /// at every moment. False if the other folder has none.
    pub(crate) fn bring_anew(&self, from: &Self, key: &str) -> Result<bool, StoreError> {
        self.make_parents(key)?;
        self.delete(&format!("{key}.tmp"))?;
        Ok(self.bring_over(from, key, u64::MAX)?.is_some())
    }

    fn bring_over(&self, from: &Self, key: &str, length: u64) -> Result<Option<u64>, StoreError> {
        let temporary = format!("{key}.tmp");
        let copied = match self.copy(from, key, length, &temporary) {
            Ok(copied) => copied,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io(self.path(key), error)),
        };
        self.rename(&temporary, key)?;
        Ok(Some(copied))
    }

    fn copy(&self, from: &Self, key: &str, length: u64, to: &str) -> io::Result<u64> {
        let mut source = File::open(from.path(key))?.take(length);
        let path = self.path(to);
        let make = Step::Create {
            path: &path,
            truncate: false,
        };
        let mut target = step(make, || {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(0o600);
            options.open(&path)
        })?;
        let copied = step(Step::Copy(&path), || io::copy(&mut source, &mut target))?;
        step(Step::Sync(&path), || target.sync_all())?;
        Ok(copied)
    }

    /// Whether nothing is in the folder.
    pub(crate) fn is_empty(&self) -> Result<bool, StoreError> {
        let mut entries = fs::read_dir(self.path("")).map_err(|error| self.error("", error))?;
        Ok(entries.next().is_none())
    }

    /// Keys of all files but those below `folders`.
    pub(crate) fn files_beside(&self, folders: &[&str]) -> Result<Vec<String>, StoreError> {
        let mut keys = Vec::new();
        for entry in fs::read_dir(self.path("")).map_err(|error| self.error("", error))? {
            let entry = entry.map_err(|error| self.error("", error))?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let kind = self.kind(&entry, &name)?;
            if kind.is_file() {
                keys.push(name);
            } else if kind.is_dir() && !folders.contains(&name.as_str()) {
                keys.extend(self.list(&name)?);
            }
        }
        Ok(keys)
    }
}
