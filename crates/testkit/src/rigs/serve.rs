//! The real binary: a server as a child process, and commands against it.

use super::program::{self, Outcome, run};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use tempfile::TempDir;

const START_SECONDS_MAX: u64 = 60;

/// `firn serve` on a port of loopback that the kernel chose.
pub struct Server {
    binary: PathBuf,
    /// Its configuration file, as JSON, and the filter of its log.
    settings: (String, &'static str),
    data: PathBuf,
    _folder: TempDir,
    child: Child,
    address: String,
}

impl Server {
    /// Starts with an empty data folder. `binary` is `env!("CARGO_BIN_EXE_firn")`.
    pub fn start(binary: &str) -> Self {
        Self::start_with(binary, "{}", "info")
    }

    /// Starts with a configuration file of this content, logging what `filter` lets through.
    pub fn start_with(binary: &str, config: &str, filter: &'static str) -> Self {
        let folder = tempfile::tempdir().expect("cannot make a temporary folder");
        let data = folder.path().join("data");
        let settings = (config.to_owned(), filter);
        let (child, address) = spawn(Path::new(binary), &data, "127.0.0.1:0", &settings);
        Self {
            settings,
            binary: binary.into(),
            data,
            _folder: folder,
            child,
            address,
        }
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data.with_extension("log")).expect("cannot read the log")
    }

    /// `127.0.0.1:PORT`, which is also the name of the registry.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The address of a cache, as a substituter.
    pub fn cache(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }

    /// The administrator's token.
    pub fn token(&self) -> String {
        std::fs::read_to_string(self.data.join("admin.token"))
            .expect("the first start writes admin.token")
            .trim()
            .to_owned()
    }

    /// The public key of a cache, `name:base64`.
    pub fn public_key(&self, cache: &str) -> String {
        self.get(&format!("/{cache}/public-key")).ok()
    }

    /// GETs a path of the server with the administrator's token; a status of 400 and above fails.
    pub fn get(&self, path: &str) -> Outcome {
        run(program::command("curl")
            .args(["--silent", "--show-error", "--fail"])
            .args([
                "--header",
                &format!("Authorization: Bearer {}", self.token()),
            ])
            .arg(format!("{}{path}", self.url())))
    }

    /// The status of an anonymous GET.
    pub fn status_of(&self, path: &str) -> String {
        run(program::command("curl")
            .args([
                "--silent",
                "--output",
                "/dev/null",
                "--write-out",
                "%{http_code}",
            ])
            .arg(format!("{}{path}", self.url())))
        .ok()
    }

    /// The most memory it ever had, in bytes.
    pub fn memory_peak(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("the server runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.expect("a peak") * 1024
    }

    /// Ends the process with SIGKILL, as a crash does.
    pub fn crash(&mut self) {
        self.child.kill().expect("cannot kill the server");
        self.child.wait().expect("cannot wait for the server");
    }

    /// Asks it to end with SIGTERM, and says whether it ended well.
    pub fn stop(&mut self) -> bool {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)
            .expect("cannot signal the server");
        self.child
            .wait()
            .expect("cannot wait for the server")
            .success()
    }

    /// Starts another binary on the same data and at the same address.
    pub fn restart_as(&mut self, binary: &Path) {
        self.binary = binary.to_owned();
        self.restart();
    }

    /// Starts again on the same data and at the same address.
    pub fn restart(&mut self) {
        (self.child, self.address) = spawn(&self.binary, &self.data, &self.address, &self.settings);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts `firn serve` and waits for the address that it prints.
fn spawn(
    binary: &Path,
    data: &Path,
    listen: &str,
    (config, filter): &(String, &'static str),
) -> (Child, String) {
    let file = data.with_extension("json");
    std::fs::write(&file, config).expect("cannot write the server's configuration");
    let log = data.with_extension("log");
    let stderr = File::options()
        .create(true)
        .append(true)
        .open(&log)
        .expect("cannot open the server's log");
    let mut child = program::daemon(binary)
        .args(["serve", "--json", "--listen", listen, "--data"])
        .arg(data)
        .arg("--config")
        .arg(file)
        .env("FIRN_LOG", filter)
        .env_remove("FIRN_SERVER")
        .env_remove("FIRN_TOKEN")
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .expect("cannot start firn serve");
    let stdout = child.stdout.take().expect("its output is a pipe");
    let (sender, receiver) = mpsc::channel();
    // Reads on to the end: a full pipe would stop the server.
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let said = receiver
        .recv_timeout(Duration::from_secs(START_SECONDS_MAX))
        .unwrap_or_default();
    let ready: serde_json::Value = serde_json::from_str(&said).unwrap_or_default();
    if let Some(address) = ready["address"].as_str() {
        return (child, address.to_owned());
    }
    let _ = child.kill();
    let _ = child.wait();
    panic!(
        "firn serve did not say where it listens, but {said:?}; it logged:\n{}",
        std::fs::read_to_string(log).unwrap_or_default()
    );
}

/// A person's `firn`: a home of their own, and a server to talk to.
pub struct User {
    binary: PathBuf,
    home: TempDir,
    server: Option<String>,
    token: Option<String>,
}

impl User {
    /// The administrator of `server`.
    pub fn admin(server: &Server) -> Self {
        Self::new(server, Some(server.token()))
    }

    /// Somebody with a token, or without one.
    pub fn new(server: &Server, token: Option<String>) -> Self {
        Self {
            binary: server.binary.clone(),
            home: tempfile::tempdir().expect("cannot make a temporary folder"),
            server: Some(server.url()),
            token,
        }
    }

    /// Somebody with an empty home and no server, as a CI job. `binary` is `env!("CARGO_BIN_EXE_firn")`.
    pub fn alone(binary: &str) -> Self {
        Self {
            binary: binary.into(),
            home: tempfile::tempdir().expect("cannot make a temporary folder"),
            server: None,
            token: None,
        }
    }

    /// The same person with another `firn`.
    pub fn with_binary(mut self, binary: &Path) -> Self {
        self.binary = binary.to_owned();
        self
    }

    /// Their home folder.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// `firn` with nothing but their home known to it.
    pub fn bare_command(&self) -> Command {
        let mut command = Command::new(program::find("timeout"));
        command.args(["--kill-after=5", "300"]).arg(&self.binary);
        command.env("HOME", self.home());
        for name in ["XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"] {
            command.env(name, self.home().join(name.to_lowercase()));
        }
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("FIRN_") {
                command.env_remove(name);
            }
        }
        // Root's `firn use` would write the machine's own nix.conf.
        command.env("NIX_CONF_DIR", self.home().join("nix"));
        command.env("NO_COLOR", "1");
        command.current_dir(self.home());
        command
    }

    /// `firn` that knows server and token by its environment.
    pub fn command(&self) -> Command {
        let mut command = self.bare_command();
        if let Some(server) = &self.server {
            command.env("FIRN_SERVER", server);
        }
        if let Some(token) = &self.token {
            command.env("FIRN_TOKEN", token);
        }
        command
    }

    /// Runs `firn ARGUMENTS`.
    pub fn firn(&self, arguments: &[&str]) -> Outcome {
        run(self.command().args(arguments))
    }

    /// Runs `firn ARGUMENTS --json` and reads the one object that it prints.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let text = run(self.command().args(arguments).arg("--json")).ok();
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("firn {arguments:?} --json: {error}:\n{text}"))
    }
}
