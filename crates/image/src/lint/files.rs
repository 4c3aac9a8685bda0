//! Files that are not for running: headers, static libraries, manuals.

use super::{Check, Finding, Judged, walk};
use std::{
    collections::BTreeMap,
    path::{Component, Path},
};

/// Folders of a finding that are named.
const FOLDERS_MAX: usize = 3;
/// Folders of `share` that are there to be read by people.
const DOCS: [&str; 7] = ["doc", "man", "info", "gtk-doc", "devhelp", "help", "ri"];

pub(super) fn of(
    store_dir: &Path,
    judged: &Judged<'_>,
    path: usize,
    notes: &mut Vec<String>,
) -> Vec<Finding> {
    let name = judged.name(path);
    let top = store_dir.join(&name);
    let mut found: BTreeMap<Check, BTreeMap<String, (u64, usize)>> = BTreeMap::new();
    let mut visit = |file: &Path, metadata: &std::fs::Metadata| {
        if metadata.is_file()
            && let Some((check, folder)) = judge(file)
        {
            let sum = found.entry(check).or_default().entry(folder).or_default();
            *sum = (sum.0 + metadata.len(), sum.1 + 1);
        }
        true
    };
    if top.is_dir()
        && let Err(error) = walk::walk(&top, &mut visit)
    {
        notes.push(format!("{name} was not read to its end: {error}"));
    }
    found
        .into_iter()
        .map(|(check, folders)| {
            let mut folders: Vec<(String, (u64, usize))> = folders.into_iter().collect();
            folders.sort_by(|a, b| (b.1, &a.0).cmp(&(a.1, &b.0)));
            let count: usize = folders.iter().map(|(_, (_, count))| count).sum();
            Finding {
                check,
                path: name.clone(),
                bytes: folders.iter().map(|(_, (bytes, _))| bytes).sum(),
                paths: 0,
                files: folders
                    .into_iter()
                    .take(FOLDERS_MAX)
                    .map(|(folder, _)| folder)
                    .collect(),
                via: judged.via(path),
                detail: match count {
                    1 => "1 file".to_owned(),
                    count => format!("{count} files"),
                },
            }
        })
        .collect()
}

/// What a file is, and the folder that it belongs to.
fn judge(file: &Path) -> Option<(Check, String)> {
    let parts: Vec<&str> = file
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect();
    let (name, folders) = parts.split_last()?;
    let up_to = |last: usize| folders[..=last].join("/");
    if let Some(at) = folders.iter().position(|folder| *folder == "share")
        && folders
            .get(at + 1)
            .is_some_and(|folder| DOCS.contains(folder))
    {
        return Some((Check::Docs, up_to(at + 1)));
    }
    let first = usize::from(folders.first() == Some(&"usr"));
    if folders.get(first) == Some(&"include") {
        return Some((Check::Headers, up_to(first)));
    }
    let is_library = folders
        .get(first)
        .is_some_and(|folder| folder.starts_with("lib"));
    let end = name.rsplit_once('.').map(|(_, end)| end);
    (is_library && matches!(end, Some("a" | "la")))
        .then(|| (Check::StaticLibrary, folders.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_judged_by_where_they_lie() {
        for (file, wanted) in [
            ("include/openssl/ssl.h", Some((Check::Headers, "include"))),
            ("usr/include/x.h", Some((Check::Headers, "usr/include"))),
            ("lib/libz.a", Some((Check::StaticLibrary, "lib"))),
            ("lib/python3.11/include/x", None),
            ("share/man/man1/git.1.gz", Some((Check::Docs, "share/man"))),
            (
                "usr/share/doc/vim/README",
                Some((Check::Docs, "usr/share/doc")),
            ),
            ("share/zoneinfo/UTC", None),
            ("bin/a.a", None),
            ("lib/libz.so.1", None),
        ] {
            let found = judge(Path::new(file));
            let found = found
                .as_ref()
                .map(|(check, folder)| (*check, folder.as_str()));
            assert_eq!(found, wanted, "{file}");
        }
    }
}
