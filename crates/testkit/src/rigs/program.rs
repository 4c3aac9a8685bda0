//! Programs, found, run and judged the same way everywhere.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// No step of a test takes this long; a client that hangs is ended and its test fails.
const SECONDS_MAX: &str = "300";

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_dir
        .ancestors()
        .nth(2)
        .expect("the crate lies two folders below the root")
        .to_owned()
}

/// Where `make setup` and the rigs keep what is made once.
pub fn cache_dir() -> PathBuf {
    workspace().join(".cache")
}

/// The path of `name` among the programs of this machine, those of Debian first: another Docker
/// client in `/usr/local` is not the one to be tested.
pub fn find(name: &str) -> PathBuf {
    let debian = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    debian
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("`{name}` is not installed: run `make setup`"))
}

/// The path of a program that `make setup` compiled.
pub fn tool(name: &str) -> PathBuf {
    let path = cache_dir().join("tools/bin").join(name);
    assert!(path.is_file(), "{name} is not installed: run `make setup`");
    path
}

/// Mounts, chroots and daemons need root; so does the test that calls this.
pub fn need_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test starts containers and chroots: run it as root, after `make setup`"
    );
}

/// `program` of this machine, ended after five minutes, in the C locale.
pub fn command(program: &str) -> Command {
    limited(&find(program))
}

/// A program by its path, likewise.
pub fn limited(program: &Path) -> Command {
    let mut command = Command::new(find("timeout"));
    command.args(["--kill-after=5", SECONDS_MAX]);
    command.arg(program).env("LC_ALL", "C");
    command
}

/// `program` without a limit of time, for a daemon: the kernel ends it when the starter dies.
pub fn daemon(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(find("setpriv"));
    command
        .args(["--pdeathsig", "KILL", "--"])
        .arg(program)
        .env("LC_ALL", "C");
    command
}

/// Writes a script `folder/name` that runs `command` with the arguments it is given: what is put into PATH for
/// a program that calls another by its name.
pub fn shim(folder: &Path, name: &str, command: &Command) {
    use std::os::unix::fs::PermissionsExt as _;
    let quoted = |text: &std::ffi::OsStr| {
        let text = text.to_string_lossy().replace('\'', r"'\''");
        format!("'{text}'")
    };
    let mut line = "exec env".to_owned();
    for (key, value) in command.get_envs() {
        let Some(value) = value else { continue };
        let pair = format!("{}={}", key.to_string_lossy(), value.to_string_lossy());
        line.push_str(&format!(" {}", quoted(pair.as_ref())));
    }
    for word in std::iter::once(command.get_program()).chain(command.get_args()) {
        line.push_str(&format!(" {}", quoted(word)));
    }
    let script = folder.join(name);
    std::fs::write(&script, format!("#!/bin/sh\n{line} \"$@\"\n")).expect("cannot write a script");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&script, mode).expect("cannot make a script executable");
}

/// What a program said when it had ended.
pub struct Outcome {
    /// The command line.
    pub line: String,
    /// How it ended.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\n{}\nstdout:\n{}\nstderr:\n{}",
            self.line, self.status, self.stdout, self.stderr
        )
    }
}

impl Outcome {
    /// Its standard output without the last line end, if it succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.status.success(), "failed: {self}");
        self.stdout.trim_end_matches('\n').to_owned()
    }

    /// Its standard error, if it failed by itself: being ended after a time, by `timeout` or by a
    /// signal, is no refusal.
    #[track_caller]
    pub fn refused(self) -> String {
        let ended_itself = !matches!(self.status.code(), None | Some(124 | 137));
        assert!(
            ended_itself && !self.status.success(),
            "should have refused: {self}"
        );
        self.stderr
    }
}

/// Runs to the end.
pub fn run(command: &mut Command) -> Outcome {
    let line = format!("{command:?}");
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("cannot start {line}: {error}"));
    Outcome {
        line,
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
