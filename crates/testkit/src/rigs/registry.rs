//! Debian's docker-registry (the distribution project's), without authentication, over plain HTTP.

use super::program;
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const START_SECONDS_MAX: u64 = 60;

/// A running registry with nothing in it; ends with this value.
pub struct Registry {
    folder: TempDir,
    address: String,
    process: Child,
}

impl Registry {
    /// Starts one on a port of loopback. It deletes nothing, as it comes.
    pub fn start() -> Self {
        Self::configured(false)
    }

    /// Starts one that deletes manifests when it is asked to.
    pub fn with_deletion() -> Self {
        Self::configured(true)
    }

    fn configured(deletes: bool) -> Self {
        let folder = tempfile::tempdir().expect("cannot make a temporary folder");
        // It cannot be given port 0, so it takes one that was free a moment ago.
        let address = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .to_string();
        let configuration = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  delete:\n    enabled: {deletes}\n  \
             filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            folder.path().join("data").display()
        );
        let file = folder.path().join("config.yml");
        std::fs::write(&file, configuration).expect("cannot write config.yml");
        let log = folder.path().join("log");
        let mut process = program::daemon(program::find("docker-registry"))
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("cannot make the registry's log"))
            .spawn()
            .expect("cannot start docker-registry");
        let until = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        while TcpStream::connect(&address).is_err() {
            let ended = process.try_wait().expect("cannot ask for docker-registry");
            assert!(
                ended.is_none() && Instant::now() < until,
                "docker-registry did not start ({ended:?}):\n{}",
                std::fs::read_to_string(&log).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Self {
            folder,
            address,
            process,
        }
    }

    /// Changes a byte of a blob, given its SHA-256 in hexadecimal.
    pub fn damage_blob(&self, sha256: &str) {
        let blobs = "data/docker/registry/v2/blobs/sha256";
        let shelf = sha256.get(..2).unwrap_or_default();
        let file = self.folder.path().join(blobs).join(shelf);
        let file = file.join(sha256).join("data");
        let mut bytes = std::fs::read(&file).expect("the registry has the blob");
        let byte = bytes.first_mut().expect("it is not empty");
        *byte = !*byte;
        std::fs::write(&file, bytes).expect("cannot write the blob");
    }

    /// `127.0.0.1:PORT`, as image names begin.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
