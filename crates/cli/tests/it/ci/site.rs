//! Where the store of a life lies.

use super::RESTORE;
use super::project::{Job, Project};
use firn_testkit::rigs::ghcr::{self, Ghcr};
use firn_testkit::rigs::program::run;
use std::path::Path;
use std::process::Command;

/// A place for stores, and who may write there.
pub(crate) struct Site<'a> {
    /// As `--storage` names it.
    pub(crate) storage: String,
    place: Place<'a>,
}

enum Place<'a> {
    Folder(&'a Path),
    /// By its address; it asks for nothing.
    Registry(&'a str),
    Ghcr(&'a Ghcr),
}

impl<'a> Site<'a> {
    pub(crate) fn folder(folder: &'a Path) -> Self {
        Self {
            storage: folder.to_str().unwrap().to_owned(),
            place: Place::Folder(folder),
        }
    }

    /// A repository of a registry.
    pub(crate) fn registry(address: &'a str, name: &str) -> Self {
        Self {
            storage: format!("oci://{address}/{name}"),
            place: Place::Registry(address),
        }
    }

    /// A repository of a registry like GitHub's.
    pub(crate) fn ghcr(registry: &'a Ghcr, name: &str) -> Self {
        Self {
            storage: format!("oci://{}/{name}", registry.address()),
            place: Place::Ghcr(registry),
        }
    }

    /// The repository with a tag, as images are named; `None` for a folder.
    pub(crate) fn image(&self, tag: &str) -> Option<String> {
        let name = self.storage.strip_prefix("oci://")?;
        Some(format!("{name}:{tag}"))
    }

    /// Arguments by which `firn image push` may write there.
    pub(crate) fn rights(&self) -> &[&str] {
        match self.place {
            Place::Ghcr(_) => &["--dest-creds", ghcr::WRITER],
            _ => &[],
        }
    }

    /// Whether each request is answered, so that their number says something.
    pub(crate) fn is_calm(&self) -> bool {
        !matches!(self.place, Place::Ghcr(_))
    }

    /// Bytes of bodies that the registry did not take since this was last asked: they are sent again, and a
    /// client that counts what it sends counts them twice.
    pub(crate) fn bytes_refused(&self) -> u64 {
        let Place::Ghcr(registry) = self.place else {
            return 0;
        };
        let refused = |asked: &ghcr::Asked| matches!(asked.status, 0 | 401 | 429);
        let asked = registry.asked();
        let refused = asked.iter().filter(|asked| refused(asked));
        refused.map(|asked| asked.bytes).sum()
    }

    /// A job on a fresh machine.
    pub(crate) fn begin(&self, project: &Project) -> Job {
        self.begin_as(project, ghcr::WRITER)
    }

    /// A fork's, which a registry that knows tokens lets read only.
    pub(crate) fn begin_of_fork(&self, project: &Project) -> Job {
        self.begin_as(project, ghcr::READER)
    }

    fn begin_as(&self, project: &Project, rights: &str) -> Job {
        match self.place {
            Place::Ghcr(_) => Job::begin_with(project, &self.storage, RESTORE, rights),
            _ => Job::begin(project, &self.storage, RESTORE),
        }
    }

    /// What lies there, without the store's own eyes: files, or the repository's tags.
    pub(crate) fn content(&self) -> String {
        let registry = match self.place {
            Place::Folder(folder) => {
                return run(Command::new("find")
                    .arg(folder)
                    .args(["-type", "f", "-printf", "%P %s\n"]))
                .ok();
            }
            Place::Registry(address) => address,
            Place::Ghcr(registry) => registry.behind(),
        };
        let (_, name) = self.storage.split_once("://").unwrap_or_default();
        let (_, name) = name.split_once('/').unwrap_or_default();
        let url = format!("http://{registry}/v2/{name}/tags/list");
        run(Command::new("curl").args(["-sS", "--fail", &url])).ok()
    }
}
