//! Files that hold secrets: mode 0600, written whole or not at all, and refused where everybody may read them.

use crate::ServiceError;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Bits of a mode. Groups are warned of only: container platforms give volumes to a group of the service's own.
const OTHERS: u32 = 0o007;
const GROUP: u32 = 0o070;

fn fault(path: &Path) -> impl FnOnce(std::io::Error) -> ServiceError {
    let path = path.to_owned();
    move |source| ServiceError::SecretFile { path, source }
}

/// The file's text, or `None` if there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<String>, ServiceError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fault(path)(error)),
    };
    let mode = file.metadata().map_err(fault(path))?.permissions().mode();
    if mode & OTHERS != 0 {
        return Err(ServiceError::SecretContent {
            path: path.to_owned(),
            what: format!(
                "everybody may open it (mode {:o}); `chmod 600` it, and rotate what it holds if somebody did",
                mode & 0o777
            ),
        });
    }
    if mode & GROUP != 0 {
        tracing::warn!(path = %path.display(), mode = format!("{:o}", mode & 0o777), "a group may open a secret file");
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(fault(path))?;
    Ok(Some(text))
}

/// Replaces the file durably; its folder must exist.
pub(crate) fn write(path: &Path, content: &str) -> Result<(), ServiceError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = Path::new(&temporary);
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(fault(temporary)(error)),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(temporary)
        .map_err(fault(temporary))?;
    file.write_all(content.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(temporary, path))
        .map_err(fault(path))?;
    match path.parent() {
        Some(folder) => File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(fault(path)),
        None => Ok(()),
    }
}

/// Removes the file; its absence is success.
pub(crate) fn remove(path: &Path) -> Result<(), ServiceError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(fault(path)(error)),
        _ => Ok(()),
    }
}

/// Makes a folder that only its owner may enter.
pub(crate) fn make_folder(path: &Path) -> Result<(), ServiceError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(fault(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_everybody_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token.key");
        write(&path, "hunter2").unwrap();
        for (mode, taken) in [(0o600, true), (0o640, true), (0o604, false), (0o644, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let read = read(&path);
            assert_eq!(read.is_ok(), taken, "{mode:o}");
            if let Err(error) = read {
                assert!(error.to_string().contains("chmod 600"), "{error}");
                assert!(!error.to_string().contains("hunter2"));
            }
        }
    }

    #[test]
    fn a_secret_is_for_its_owner_only_and_replaceable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token.key");
        assert_eq!(read(&path).unwrap(), None);
        write(&path, "one").unwrap();
        write(&path, "two").unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("two"));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(read(&path).unwrap(), None);
    }
}
