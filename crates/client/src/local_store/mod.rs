//! The local Nix store: what is known of its paths, without asking the daemon where possible.

mod command;
mod database;
mod image_database;
mod recent;

pub use image_database::image_database;
pub use recent::RecentPath;

use crate::{credentials::cache_home, error::Result, memory::Memory};
use firn_formats::nix::StorePath;
use firn_image::closure::{Closure, PathInfo};
use std::path::{Path, PathBuf};

/// A Nix store on this machine.
#[derive(Debug, Clone)]
pub struct LocalStore {
    state_dir: PathBuf,
    store_dir: PathBuf,
    cache_dir: Option<PathBuf>,
}

impl Default for LocalStore {
    fn default() -> Self {
        Self::from_environment()
    }
}

impl LocalStore {
    /// `/nix`, or what `NIX_STATE_DIR` and `NIX_STORE_DIR` say; what was read of it once is remembered
    /// in the user's cache folder.
    pub fn from_environment() -> Self {
        let dir = |name: &str, default: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map_or_else(|| PathBuf::from(default), PathBuf::from)
        };
        Self {
            cache_dir: cache_home().map(|home| home.join("firn")),
            ..Self::new(
                dir("NIX_STATE_DIR", "/nix/var/nix"),
                dir("NIX_STORE_DIR", firn_formats::nix::store_path::STORE_DIR),
            )
        }
    }

    /// A store whose database is below `state_dir` and whose paths lie in `store_dir`. The paths'
    /// names begin with `/nix/store` in any case. Nothing is remembered between runs.
    pub fn new(state_dir: impl Into<PathBuf>, store_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            store_dir: store_dir.into(),
            cache_dir: None,
        }
    }

    /// Remembers the chunk lists of what is read in this folder.
    pub fn with_cache_dir(self, dir: impl Into<PathBuf>) -> Self {
        Self {
            cache_dir: Some(dir.into()),
            ..self
        }
    }

    /// The memory of chunk lists.
    pub(crate) fn memory(&self) -> Memory {
        match &self.cache_dir {
            Some(dir) => Memory::at(&dir.join("chunk-lists.sqlite")),
            None => Memory::none(),
        }
    }

    /// The database file.
    pub fn database_path(&self) -> PathBuf {
        self.state_dir.join("db/db.sqlite")
    }

    /// Where the store's paths lie.
    pub fn store_dir(&self) -> &Path {
        &self.store_dir
    }

    /// Where one path lies.
    pub fn physical(&self, path: &StorePath) -> PathBuf {
        self.store_dir.join(path.to_string())
    }

    /// The closure of `roots`, references before referrers.
    ///
    /// Reads the database itself; where it may not, or where there is none, it asks `nix-store`.
    pub fn closure(&self, roots: &[StorePath]) -> Result<Closure> {
        let infos = match database::open(&self.database_path()) {
            Ok(connection) => database::closure(&connection, &self.database_path(), roots)?,
            Err(refusal) => match command::closure(roots) {
                Ok(infos) => infos,
                Err(error) => {
                    tracing::debug!(%error, "nix-store could not answer either");
                    return Err(refusal);
                }
            },
        };
        Ok(Closure::new(infos, roots.to_vec())?)
    }

    /// The closure of those of the paths that are here; of none where there is no database to be read.
    pub fn closure_of_valid(&self, paths: &[StorePath]) -> Result<Closure> {
        let file = self.database_path();
        let Ok(connection) = database::open(&file) else {
            return Ok(Closure::default());
        };
        let roots = database::valid(&connection, &file, paths)?;
        let infos = database::closure(&connection, &file, &roots)?;
        Ok(Closure::new(infos, roots)?)
    }

    /// The paths alone, without their references.
    pub fn paths(&self, roots: &[StorePath]) -> Result<Vec<PathInfo>> {
        let closure = self.closure(roots)?;
        let wanted: std::collections::HashSet<&StorePath> = roots.iter().collect();
        Ok(closure
            .paths
            .into_iter()
            .filter(|info| wanted.contains(&info.path))
            .collect())
    }
}
