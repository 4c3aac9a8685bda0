//! What a server needs to know of a layer, beside its tar, to compute its key.

use super::PlannedImage;
use crate::archive::{
    ArchiveError,
    tree::{self, Node, Step},
};
use crate::spec::{Attributes, Rules};
use firn_formats::layer::{EXECUTABLE_MODE, FILE_MODE, Recipe};
use std::os::unix::ffi::OsStrExt;

impl PlannedImage {
    /// How a layer was made, if rules could match in its store paths: without them its tar says all. Reads no file.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn layer_recipe(&self, index: usize) -> Result<Option<Recipe>, ArchiveError> {
        let paths = self.layers[index].paths.iter();
        let paths: Vec<_> = paths.map(|&i| &self.closure.paths[i].path).collect();
        let rules = self.spec.rules.in_store(&paths);
        if paths.is_empty() || rules.is_empty() {
            return Ok(None);
        }
        let mut executable = Vec::new();
        for path in paths {
            self.hidden(&path.to_string(), &rules, &mut executable)?;
        }
        let (uid, gid) = rules.owner();
        Ok(Some(Recipe {
            uid,
            gid,
            rules: rules.written(),
            executable,
        }))
    }

    /// The executable files of a path whose modes do not show it.
    fn hidden(
        &self,
        base_name: &str,
        rules: &Rules,
        executable: &mut Vec<String>,
    ) -> Result<(), ArchiveError> {
        tree::walk(&self.store_dir.join(base_name), &mut |step| {
            let Step::Node {
                local,
                node: Node::Regular {
                    executable: true, ..
                },
                ..
            } = step
            else {
                return Ok(());
            };
            // One that is not UTF-8 is left out: its layer is not shared.
            let inside = local.strip_prefix(&self.store_dir).unwrap_or(local);
            let path = [b"/nix/store/", inside.as_os_str().as_bytes()].concat();
            let with = |mode| {
                let (uid, gid) = rules.owner();
                let mut attributes = Attributes { mode, uid, gid };
                rules.apply(&path, None, &mut attributes);
                attributes.mode
            };
            if with(EXECUTABLE_MODE) == with(FILE_MODE)
                && let Ok(path) = std::str::from_utf8(&path)
            {
                executable.push(path.trim_start_matches('/').to_owned());
            }
            Ok(())
        })
    }
}
