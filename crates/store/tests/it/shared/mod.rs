//! Stores without a server.

mod cache;
mod collection;
mod folder;
mod place_time;
mod rewriting;
mod runs;
mod s3;
mod signatures;
mod unused_paths;

use firn_store::EntryKind;
use firn_store::shared::{Backend, FolderBackend};
use firn_testkit::shared_store::{Client, Place, put, read};
use std::path::Path;
use std::sync::Arc;

const KIND: EntryKind = EntryKind::Narinfo;

fn folder(dir: &Path) -> Arc<dyn Backend> {
    Arc::new(FolderBackend::new(dir).unwrap())
}

fn place_in(dir: &Path) -> Place {
    let dir = dir.to_owned();
    Box::new(move || folder(&dir))
}

fn write(client: &Client, kind: EntryKind, key: &str) {
    let run = client.run("test").unwrap();
    put(&run, kind, key).unwrap();
    run.publish().unwrap();
}

fn has(client: &Client, key: &str) -> bool {
    read(client, KIND, key).unwrap().is_some()
}

fn bytes_below(dir: &Path) -> u64 {
    let files = crate::support::files(dir);
    files
        .iter()
        .map(|file| std::fs::metadata(file).unwrap().len())
        .sum()
}
