//! A server that speaks S3 (s3s-fs of `tools/setup`), over plain HTTP.

use super::program;
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const START_SECONDS_MAX: u64 = 20;
const ACCESS_KEY: &str = "firn-test";
const SECRET_KEY: &str = "firn-test-secret";

/// A running server with one empty bucket; ends with this value.
pub struct S3 {
    _folder: TempDir,
    address: String,
    process: Child,
}

impl S3 {
    /// The name of the bucket.
    pub const BUCKET: &str = "bucket";

    /// Starts one on a port of loopback.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("cannot make a temporary folder");
        let data = folder.path().join("data");
        std::fs::create_dir_all(data.join(Self::BUCKET)).expect("cannot make the bucket");
        // It does not tell which port it has taken, so it is given one that was free a moment ago.
        let address = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port");
        let binary = program::tool("s3s-fs");
        let log = folder.path().join("log");
        let mut process = program::daemon(binary)
            .args(["--host", "127.0.0.1", "--port", &address.port().to_string()])
            .args(["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY])
            .arg(&data)
            .stdout(File::create(&log).expect("cannot make the server's log"))
            .stderr(Stdio::null())
            .spawn()
            .expect("cannot start s3s-fs");
        let until = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        while TcpStream::connect(address).is_err() {
            let ended = process.try_wait().expect("cannot ask for s3s-fs");
            assert!(
                ended.is_none() && Instant::now() < until,
                "s3s-fs did not start ({ended:?}):\n{}",
                std::fs::read_to_string(&log).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Self {
            _folder: folder,
            address: address.to_string(),
            process,
        }
    }

    /// The `AWS_…` variables with which a client comes here.
    pub fn settings(&self) -> Vec<(String, String)> {
        let endpoint = format!("http://{}", self.address);
        [
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ALLOW_HTTP", "true"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
