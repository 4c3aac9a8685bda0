//! What lies in a folder.

use std::path::Path;

/// Bytes of all files below a folder; of one that is not there, 0. Files that go meanwhile do not count.
pub fn bytes_below(folder: &Path) -> u64 {
    let Ok(items) = std::fs::read_dir(folder) else {
        return 0;
    };
    items
        .flatten()
        .map(|item| match item.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&item.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}
