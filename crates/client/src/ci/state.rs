//! What the steps of one job tell each other: a folder with small JSON files.
//!
//! ```text
//! job.json       by restore: the store, the key, what matched, what was valid then
//! prefetch.json  by restore, for the daemon: hash parts
//! daemon.json    by the daemon, once it listens: pid, URL, public key
//! daemon.lock    locked while the daemon lives
//! daemon.log     its standard error
//! stats.json     by the daemon at its end: what it was asked for
//! save.json      by save
//! ```

use super::error::{CiError, Result};
use crate::files::write_secret;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fs::{DirBuilder, File, OpenOptions},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// What restore found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct JobState {
    pub storage: String,
    pub cache: String,
    pub key: String,
    pub restore_keys: Vec<String>,
    pub matched_key: Option<String>,
    pub exact: bool,
    /// The folders asked for, as the user named them.
    pub folders: Vec<String>,
    /// The largest row id of the Nix database before the job, if it could be read.
    pub baseline: Option<i64>,
    /// Milliseconds since 1970.
    pub started_at: u64,
    pub restore_seconds: f64,
    /// Seconds of the run that filled the entry that matched.
    pub seconds_cold: Option<f64>,
    /// Paths and their NAR bytes that the matched entry names.
    pub entry_paths: u64,
    pub entry_bytes: u64,
    pub folder_bytes: u64,
    /// Paths that the store held when restore looked.
    pub store_paths: u64,
    /// Requests to the store before Nix could ask.
    pub requests: u64,
    /// Why nothing could be restored, if so.
    pub trouble: Option<String>,
}

/// A daemon that listens.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DaemonState {
    pub pid: i32,
    /// The substituter's URL.
    pub url: String,
    pub public_key: String,
}

/// What the daemon was asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct DaemonStats {
    pub narinfo_hits: u64,
    pub narinfo_misses: u64,
    pub nars: u64,
    pub nar_bytes: u64,
    pub bytes_local: u64,
    pub bytes_fetched: u64,
    /// Requests to the store.
    pub requests: u64,
    /// Hash parts in the order of the first asking.
    pub used: Vec<String>,
}

/// Makes the process the leader of a session of its own: the end of the step that started it is not its end.
pub fn lead_own_session() {
    // It fails only for a leader.
    let _session = rustix::process::setsid();
}

/// The id of this process.
pub fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// Asks this process to end as anybody else would.
pub fn end_own_process() {
    let own = rustix::process::getpid();
    // A process may always signal itself.
    let _sent = rustix::process::kill_process(own, rustix::process::Signal::TERM);
}

/// The folder.
#[derive(Debug, Clone)]
pub struct StateDir(PathBuf);

const LOCK: &str = "daemon.lock";

impl StateDir {
    /// The folder that is given, else the one of this job by its environment: below `RUNNER_TEMP`,
    /// `XDG_RUNTIME_DIR` or the folder for temporary files, named by the job or the working directory.
    ///
    /// # Errors
    /// If the working directory is gone.
    pub fn locate(given: Option<&Path>) -> Result<Self> {
        if let Some(dir) = given {
            return Ok(Self(dir.to_path_buf()));
        }
        let set = |name: &str| super::event::process_environment(name).map(PathBuf::from);
        if let Some(temp) = set("RUNNER_TEMP") {
            return Ok(Self(temp.join("firn-ci")));
        }
        let job = match super::event::process_environment("CI_JOB_ID") {
            Some(id) => id,
            None => {
                let here = std::env::current_dir().map_err(|source| CiError::io(".", source))?;
                here.to_string_lossy().into_owned()
            }
        };
        let job = &firn_formats::Sha256::of(job.as_bytes()).hex()[..12];
        let user = rustix::process::geteuid().as_raw();
        let temp = set("XDG_RUNTIME_DIR").unwrap_or_else(std::env::temp_dir);
        Ok(Self(temp.join(format!("firn-ci-{user}-{job}"))))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Makes it, for nobody else, and forgets what an earlier job left.
    ///
    /// # Errors
    /// If it cannot be made, or is another user's.
    pub fn create(&self) -> Result<()> {
        let fault = |source| CiError::io(&self.0, source);
        if let Some(parent) = self.0.parent() {
            std::fs::create_dir_all(parent).map_err(fault)?;
        }
        match DirBuilder::new().mode(0o700).create(&self.0) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            other => other.map_err(fault)?,
        }
        self.check_owner()?;
        for name in [
            "job.json",
            "prefetch.json",
            "daemon.json",
            "stats.json",
            "save.json",
        ] {
            match std::fs::remove_file(self.file(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(CiError::io(self.file(name), error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What somebody else has prepared must not be believed.
    fn check_owner(&self) -> Result<()> {
        let metadata =
            std::fs::symlink_metadata(&self.0).map_err(|source| CiError::io(&self.0, source))?;
        match metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw() {
            true => Ok(()),
            false => Err(CiError::Setting(format!(
                "{} is somebody else's; --state DIR takes another",
                self.0.display()
            ))),
        }
    }

    /// Writes a file whole.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<()> {
        let bytes = serde_json::to_vec(value).map_err(|source| CiError::Document {
            path: name.to_owned(),
            source,
        })?;
        Ok(write_secret(&self.file(name), &bytes)?)
    }

    /// Reads a file; `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read, holds something else, or lies in somebody else's folder.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let path = self.file(name);
        if !self.0.exists() {
            return Ok(None);
        }
        self.check_owner()?;
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CiError::io(path, source)),
        };
        let value = serde_json::from_slice(&bytes).map_err(|source| CiError::Document {
            path: path.display().to_string(),
            source,
        })?;
        Ok(Some(value))
    }

    /// Locks the folder for a daemon. The lock ends with the file, that is with the process.
    ///
    /// # Errors
    /// If another daemon has it.
    pub fn lock(&self) -> Result<File> {
        let path = self.file(LOCK);
        let file = self
            .open_lock()
            .map_err(|source| CiError::io(&path, source))?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            CiError::Setting(format!("another substituter runs for {}", self.0.display()))
        })?;
        Ok(file)
    }

    fn open_lock(&self) -> std::io::Result<File> {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.file(LOCK))
    }

    /// Whether a daemon holds the lock.
    pub fn daemon_lives(&self) -> bool {
        if !self.file(LOCK).exists() {
            return false;
        }
        self.open_lock().is_ok_and(|file| {
            rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err()
        })
    }

    /// Ends the daemon and waits until it has gone. The pid is believed only while the lock is held, so it
    /// is never a stranger's.
    ///
    /// # Errors
    /// If the state cannot be read.
    pub fn stop_daemon(&self, patience: Duration) -> Result<bool> {
        let Some(daemon) = self.read::<DaemonState>("daemon.json")? else {
            return Ok(false);
        };
        if !self.daemon_lives() {
            return Ok(false);
        }
        for signal in [rustix::process::Signal::TERM, rustix::process::Signal::KILL] {
            let Some(pid) = rustix::process::Pid::from_raw(daemon.pid) else {
                return Ok(false);
            };
            // It may have ended just now.
            let _sent = rustix::process::kill_process(pid, signal);
            let until = Instant::now() + patience;
            while Instant::now() < until {
                if !self.daemon_lives() {
                    return Ok(true);
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_job_forgets_the_last_one() {
        let dir = tempfile::tempdir().expect("a folder");
        let state = StateDir::locate(Some(&dir.path().join("a/b"))).expect("a place");
        state.create().expect("made");
        let job = JobState {
            key: "k".to_owned(),
            ..JobState::default()
        };
        state.write("job.json", &job).expect("written");
        let read: JobState = state.read("job.json").expect("read").expect("there");
        assert_eq!(read.key, "k");
        state.create().expect("made again");
        assert!(state.read::<JobState>("job.json").expect("read").is_none());
    }

    #[test]
    fn only_a_daemon_that_holds_the_lock_lives() {
        let dir = tempfile::tempdir().expect("a folder");
        let state = StateDir::locate(Some(dir.path())).expect("a place");
        assert!(!state.daemon_lives());
        let lock = state.lock().expect("the lock");
        assert!(state.daemon_lives());
        assert!(state.lock().is_err());
        drop(lock);
        assert!(!state.daemon_lives());
        // A pid of this very process must not be believed.
        let daemon = DaemonState {
            pid: std::process::id() as i32,
            url: String::new(),
            public_key: String::new(),
        };
        state.write("daemon.json", &daemon).expect("written");
        assert!(
            !state
                .stop_daemon(Duration::from_millis(50))
                .expect("no fault")
        );
    }
}
