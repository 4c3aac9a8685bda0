//! In which order an entry is looked for.
//!
//! In each scope in turn: the key, then as a prefix, then each restore key, and as a prefix. The first of these that
//! finds something ends the search. Of several entries with a prefix the newest counts. Cases differ.

/// One look at one scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt<'a> {
    /// Where.
    pub scope: &'a str,
    /// Which key …
    pub key: &'a str,
    /// … of which this is only the beginning.
    pub prefix: bool,
}

/// The looks, in order. `keys`: the primary one first; BuildKit sends it among the restore keys again.
pub fn attempts<'a, S, K>(scopes: S, keys: &'a [K]) -> impl Iterator<Item = Attempt<'a>>
where
    S: IntoIterator<Item = &'a str>,
    K: AsRef<str>,
{
    scopes.into_iter().flat_map(move |scope| {
        keys.iter().enumerate().flat_map(move |(place, key)| {
            let key = key.as_ref();
            let again = keys[..place].iter().any(|before| before.as_ref() == key);
            let looks = if again { &[][..] } else { &[false, true] };
            looks.iter().map(move |prefix| Attempt {
                scope,
                key,
                prefix: *prefix,
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_before_its_prefix_and_a_scope_before_the_next() {
        let found: Vec<String> = attempts(["s", "t"], &["k", "r", "k"])
            .map(|look| {
                format!(
                    "{}:{}{}",
                    look.scope,
                    look.key,
                    if look.prefix { "*" } else { "" }
                )
            })
            .collect();
        assert_eq!(
            found,
            ["s:k", "s:k*", "s:r", "s:r*", "t:k", "t:k*", "t:r", "t:r*"]
        );
        assert_eq!(attempts([], &["k"]).count(), 0);
    }
}
