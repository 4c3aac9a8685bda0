//! `--history`: what is known of an image's revisions, out of a file or from a registry.

use super::inspect;
use crate::{
    context::Global,
    failure::{Failure, Outcome},
};
use firn_client::{
    image::{read_history, with_revision},
    progress::Progress,
};
use firn_image::{compose::PlannedImage, plan::History};
use std::{
    io::{ErrorKind, Read as _},
    path::{Path, PathBuf},
};

#[derive(Debug, clap::Args)]
pub(crate) struct HistoryArgs {
    /// What layers are planned by: a file (NAME.json, kept up to date), or an image that was pushed
    /// [default: when pushing, the image of the same name]
    #[arg(long, value_name = "FILE|IMAGE")]
    history: Option<String>,
    /// Plan as if nothing were known, and keep nothing
    #[arg(long, conflicts_with = "history")]
    no_history: bool,
}

impl HistoryArgs {
    /// What was asked for, or else what `own` finds.
    pub(super) fn read(
        &self,
        global: &Global,
        creds: Option<&str>,
        progress: &dyn Progress,
        own: impl FnOnce() -> History,
    ) -> Outcome<History> {
        match (&self.history, self.file()) {
            _ if self.no_history => Ok(History::default()),
            (_, Some(file)) => read_file(&file),
            (Some(image), None) => {
                let (repository, tag) = inspect::repository(global, image, creds)?;
                Ok(read_history(&repository, &tag, progress))
            }
            (None, None) => Ok(own()),
        }
    }

    /// Whether the history is to be kept beside an image that is pushed.
    pub(super) fn is_kept(&self) -> bool {
        !self.no_history
    }

    /// Puts the image into the file, if one was given, as the newest revision.
    pub(super) fn write(&self, image: &PlannedImage) -> Outcome {
        let Some(file) = self.file() else {
            return Ok(());
        };
        let json = with_revision(image)
            .to_json()
            .map_err(|error| Failure::of(&error))?;
        let mut name = file.as_os_str().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = PathBuf::from(name);
        std::fs::write(&temporary, json)
            .and_then(|()| std::fs::rename(&temporary, &file))
            .map_err(|error| Failure::new(format!("{}: {error}", file.display())))
    }

    fn file(&self) -> Option<PathBuf> {
        let name = self.history.as_deref()?;
        let path = Path::new(name);
        let is_file = path.extension().is_some_and(|end| end == "json") || path.exists();
        is_file.then(|| path.to_owned())
    }
}

/// A file that is not there yet is an empty history.
fn read_file(file: &Path) -> Outcome<History> {
    let name = file.display();
    let mut json = Vec::new();
    let limit = firn_image::plan::HISTORY_BYTES_MAX as u64 + 1;
    let read = std::fs::File::open(file).and_then(|open| open.take(limit).read_to_end(&mut json));
    match read {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(History::default()),
        Err(error) => return Err(Failure::new(format!("{name}: {error}"))),
        Ok(_) => {}
    }
    History::parse(&json).map_err(|error| {
        Failure::new(format!("{name}: {}", Failure::of(&error).message())).hint(
            "--history takes a file that firn wrote; without it, nothing is known of the image",
        )
    })
}
