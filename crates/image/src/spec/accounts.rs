//! Users and groups of an image, as lines of `passwd` and `group`.

use serde::{Deserialize, Serialize};

const SHELL_DEFAULT: &str = "/bin/sh";

/// A line of `/etc/passwd`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct User {
    pub name: String,
    pub uid: u32,
    /// The user's own group, of the same number and name, by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Made, with mode 0700, if it is given; `/var/empty` otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// A line of `/etc/group`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Group {
    pub name: String,
    pub gid: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
}

/// Users and groups besides root and nobody.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct Accounts {
    pub users: Vec<User>,
    pub groups: Vec<Group>,
}

impl User {
    /// The number of its group.
    pub fn group(&self) -> u32 {
        self.gid.unwrap_or(self.uid)
    }

    /// Its home without the leading slash, if there is one to be made.
    pub fn home_to_make(&self) -> Option<&str> {
        let home = self.home.as_deref()?.trim_matches('/');
        (!home.is_empty()).then_some(home)
    }
}

impl Accounts {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.groups.is_empty()
    }

    /// The name of what could not stand in a line of its file: a colon or a line's end in it.
    pub fn unsound(&self) -> Option<&str> {
        let users = self.users.iter().flat_map(|user| {
            let rest = [&user.home, &user.shell];
            let rest = rest.into_iter().filter_map(Option::as_deref);
            rest.chain([user.name.as_str(), &user.description])
        });
        let groups = self.groups.iter().flat_map(|group| {
            let members = group.members.iter().map(String::as_str);
            members.chain([group.name.as_str()])
        });
        let bad = |text: &&str| text.contains([':', '\n', '\0']);
        let names = self.users.iter().map(|user| user.name.as_str());
        let mut nameless = names.chain(self.groups.iter().map(|group| group.name.as_str()));
        nameless
            .find(|name| name.is_empty())
            .or_else(|| users.chain(groups).find(bad))
    }

    /// Lines of `passwd` after those that are there always.
    pub(crate) fn passwd(&self) -> String {
        let line = |user: &User| {
            format!(
                "{}:x:{}:{}:{}:{}:{}\n",
                user.name,
                user.uid,
                user.group(),
                user.description,
                user.home.as_deref().unwrap_or("/var/empty"),
                user.shell.as_deref().unwrap_or(SHELL_DEFAULT),
            )
        };
        self.users.iter().map(line).collect()
    }

    /// Lines of `group`, those of users who have a group of their own first.
    pub(crate) fn group(&self) -> String {
        let own = self.users.iter().filter(|user| {
            let gid = user.group();
            let known = [0, NOBODY].contains(&gid);
            !known && !self.groups.iter().any(|group| group.gid == gid)
        });
        let mut seen = std::collections::BTreeSet::new();
        let own = own.filter(|user| seen.insert(user.group()));
        let mut lines: String = own
            .map(|user| format!("{}:x:{}:\n", user.name, user.group()))
            .collect();
        for group in &self.groups {
            let members = group.members.join(",");
            lines.push_str(&format!("{}:x:{}:{members}\n", group.name, group.gid));
        }
        lines
    }
}

/// The number of nobody, user and group.
const NOBODY: u32 = 65534;

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, uid: u32, gid: Option<u32>) -> User {
        User {
            name: name.to_owned(),
            uid,
            gid,
            home: Some(format!("/home/{name}")),
            shell: None,
            description: String::new(),
        }
    }

    #[test]
    fn users_have_groups() {
        let accounts = Accounts {
            users: vec![
                user("app", 1000, None),
                user("web", 1001, Some(1000)),
                user("db", 70, Some(7)),
            ],
            groups: vec![Group {
                name: "data".to_owned(),
                gid: 7,
                members: vec!["app".to_owned(), "web".to_owned()],
            }],
        };
        assert_eq!(
            accounts.passwd(),
            "app:x:1000:1000::/home/app:/bin/sh\nweb:x:1001:1000::/home/web:/bin/sh\n\
             db:x:70:7::/home/db:/bin/sh\n"
        );
        assert_eq!(accounts.group(), "app:x:1000:\ndata:x:7:app,web\n");
        assert_eq!(accounts.users[0].home_to_make(), Some("home/app"));
        assert_eq!(accounts.unsound(), None);
    }

    #[test]
    fn what_would_make_another_line_is_found() {
        let mut accounts = Accounts::default();
        accounts.users.push(user("a\nroot::0:0", 1, None));
        assert_eq!(accounts.unsound(), Some("/home/a\nroot::0:0"));
        accounts.users = vec![user("", 1, None)];
        assert_eq!(accounts.unsound(), Some(""));
    }
}
