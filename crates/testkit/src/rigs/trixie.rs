//! Debian 13 in a folder: newer clients than the machine's own, without touching the machine.
//!
//! Each command gets a mount namespace of its own, so nothing stays mounted behind it. The Nix
//! store, the temporary folder and the kernel's file systems are the machine's, under the same
//! names; so paths mean the same on both sides.

use super::program;
use std::path::PathBuf;
use std::process::Command;

/// Binds what both sides share, then runs the rest of its arguments inside. The root is bound onto
/// itself because Docker unpacks layers behind a `pivot_root`, which wants a mount point.
const ENTER: &str = r#"
root=$1; temporary=$2; shift 2
mount --bind "$root" "$root"
for shared in /proc /dev /sys /nix "$temporary"; do
  mkdir -p "$shared" "$root$shared"
  mount --rbind "$shared" "$root$shared"
done
exec chroot "$root" "$@"
"#;

/// The root that `make setup` made.
fn root() -> PathBuf {
    program::need_root();
    let root = program::cache_dir().join("trixie");
    assert!(
        root.join(".complete").is_file(),
        "there is no Debian 13 root at {}: run `make setup`",
        root.display()
    );
    root.canonicalize().expect("the root was just there")
}

/// `program` of Debian 13, ended after five minutes.
pub fn command(program: &str) -> Command {
    let mut command = program::command("unshare");
    enter(&mut command, program);
    command
}

/// `program` of Debian 13 without a limit of time; its process id is the child's.
pub fn daemon(program: &str) -> Command {
    let mut command = program::daemon(program::find("unshare"));
    enter(&mut command, program);
    command
}

fn enter(command: &mut Command, program: &str) {
    command
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-ec",
            ENTER,
            "sh",
        ])
        .arg(root())
        .arg(std::env::temp_dir())
        .arg(program)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
}
