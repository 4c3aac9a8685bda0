//! What is made and comes from no store path: users, groups, temporary directories, files of others.

use super::entries::{Generated, RootEntry, RootNode};
use crate::spec::{ImageSpec, RootContent};

fn entry(path: &str, node: RootNode, mode: u32) -> Generated {
    (path.to_owned(), RootEntry::new(node, mode))
}

fn file(path: &str, text: String) -> Generated {
    entry(path, RootNode::File(text.into_bytes()), 0o644)
}

pub(super) fn of(spec: &ImageSpec) -> Vec<Generated> {
    let mut entries = Vec::new();
    if spec.users || !spec.accounts.is_empty() {
        entries.extend([
            file(
                "etc/passwd",
                format!(
                    concat!(
                        "root:x:0:0:System administrator:/root:/bin/sh\n",
                        "nobody:x:65534:65534:Unprivileged account:/var/empty:/bin/sh\n",
                        "{}"
                    ),
                    spec.accounts.passwd()
                ),
            ),
            file(
                "etc/group",
                format!("root:x:0:\nnobody:x:65534:\n{}", spec.accounts.group()),
            ),
            file("etc/nsswitch.conf", "hosts: files dns\n".to_owned()),
            entry("root", RootNode::Directory, 0o700),
            entry("var/empty", RootNode::Directory, 0o555),
        ]);
    }
    for user in &spec.accounts.users {
        if let Some(home) = user.home_to_make() {
            let (path, mut entry) = entry(home, RootNode::Directory, 0o700);
            entry.attributes.uid = user.uid.into();
            entry.attributes.gid = user.group().into();
            entries.push((path, entry));
        }
    }
    if spec.tmp {
        entries.extend([
            entry("tmp", RootNode::Directory, 0o1777),
            entry("var/tmp", RootNode::Directory, 0o1777),
        ]);
    }
    entries.extend(spec.files.iter().map(|file| {
        let node = match &file.content {
            RootContent::File(bytes) => RootNode::File(bytes.clone()),
            RootContent::Symlink(target) => RootNode::Symlink(target.clone().into_bytes()),
            RootContent::Directory => RootNode::Directory,
        };
        entry(&file.path, node, file.mode)
    }));
    entries
}
