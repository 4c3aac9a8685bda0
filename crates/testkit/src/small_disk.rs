//! A disk that is full soon.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A small file system in memory, for as long as this lives. Needs root.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts it, of a size as `mount -t tmpfs` has it (`64m`), at a folder that is made.
    ///
    /// # Panics
    /// If that cannot be done.
    #[allow(clippy::expect_used)]
    pub fn mount(at: &Path, size: &str) -> Self {
        std::fs::create_dir_all(at).expect("mounting");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(at)
            .status()
            .expect("mounting");
        assert!(status.success(), "mounting a tmpfs needs root");
        Self(at.to_owned())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let status = Command::new("umount").arg(&self.0).status();
        assert!(status.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}
