//! netrc: which entry a host's password comes from, and ours in it.

/// The name that goes with a token.
const LOGIN: &str = "firn";

/// An entry of netrc.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct NetrcEntry {
    /// The host; `None` for the entry that is every host's.
    pub machine: Option<String>,
    /// The name.
    pub login: Option<String>,
    /// The secret.
    pub password: Option<String>,
}

// By hand: the password is never shown.
impl std::fmt::Debug for NetrcEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetrcEntry")
            .field("machine", &self.machine)
            .field("login", &self.login)
            .finish_non_exhaustive()
    }
}

impl NetrcEntry {
    /// Whether `firn use` wrote it.
    pub fn is_ours(&self) -> bool {
        self.machine.is_some() && self.login.as_deref() == Some(LOGIN)
    }
}

/// The entries in order. Of those that match a host, curl takes the first.
pub(super) fn entries(text: &str) -> Vec<NetrcEntry> {
    let mut entries: Vec<NetrcEntry> = Vec::new();
    let mut in_macro = false;
    for line in text.lines() {
        if in_macro || line.trim_start().starts_with('#') {
            // A macro ends with an empty line.
            in_macro = in_macro && !line.trim().is_empty();
            continue;
        }
        let mut words = line.split_whitespace();
        while let Some(word) = words.next() {
            match word {
                "default" => entries.push(NetrcEntry::default()),
                "macdef" => {
                    in_macro = true;
                    break;
                }
                "machine" => entries.push(NetrcEntry {
                    machine: words.next().map(unquoted),
                    ..NetrcEntry::default()
                }),
                "login" => set(&mut entries, words.next(), |entry| &mut entry.login),
                "password" => set(&mut entries, words.next(), |entry| &mut entry.password),
                _ => {}
            }
        }
    }
    entries
}

fn set(
    entries: &mut [NetrcEntry],
    word: Option<&str>,
    field: impl FnOnce(&mut NetrcEntry) -> &mut Option<String>,
) {
    if let Some(entry) = entries.last_mut() {
        *field(entry) = word.map(unquoted);
    }
}

fn unquoted(word: &str) -> String {
    word.trim_matches('"').to_owned()
}

/// Our line for a host.
pub(super) fn line(host: &str, token: &str) -> String {
    format!("machine {host} login {LOGIN} password {token}")
}

/// With our line for a host, before all others: the first that matches is taken, and `default` matches all.
pub(super) fn with_machine(text: &str, host: &str, token: &str) -> String {
    format!("{}\n{}", line(host, token), without_machine(text, host))
}

/// Without our line for a host; others' lines stay.
pub(super) fn without_machine(text: &str, host: &str) -> String {
    let ours = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().take(4).collect();
        words == ["machine", host, "login", LOGIN]
    };
    text.lines()
        .filter(|line| !ours(line))
        .map(|line| format!("{line}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n3_entries_are_read_as_curl_reads_them() {
        let text = "# machine no login no\nmachine a.example\n  login me\n  password \"p\"\n\
                    macdef init\nmachine macro login x\n\ndefault login you password q machine h login firn";
        let found = entries(text);
        let brief: Vec<_> = found
            .iter()
            .map(|entry| {
                (
                    entry.machine.as_deref(),
                    entry.login.as_deref(),
                    entry.password.as_deref(),
                )
            })
            .collect();
        assert_eq!(
            brief,
            [
                (Some("a.example"), Some("me"), Some("p")),
                (None, Some("you"), Some("q")),
                (Some("h"), Some("firn"), None),
            ]
        );
        assert!(found[2].is_ours() && !found[0].is_ours() && !found[1].is_ours());
    }

    #[test]
    fn n3_our_entry_comes_before_one_that_matches_every_host() {
        let text = "default login me password x\nmachine h login firn password old\n";
        let with = with_machine(text, "h", "new");
        assert_eq!(
            with,
            "machine h login firn password new\ndefault login me password x\n"
        );
        assert_eq!(with_machine(&with, "h", "new"), with);
        assert_eq!(without_machine(&with, "h"), "default login me password x\n");
    }
}
