//! Listing tags, page by page.

use super::{Repository, rights::Access};
use crate::{
    error::{ClientError, Result},
    http::Call,
};
use serde::Deserialize;
use std::collections::HashSet;

/// Tags asked for at once; registries give less if they like.
const PAGE_TAGS: usize = 1000;
/// A registry whose pages do not end is given up on.
const PAGES_MAX: usize = 10_000;

#[derive(Deserialize)]
struct Page {
    /// Null where there are none.
    tags: Option<Vec<String>>,
}

impl Repository {
    /// The registry's own time, in seconds since 1970.
    pub fn time(&self) -> Result<i64> {
        let url = self.url("tags/list?n=1");
        let answer = self.send(&Call::get(url.clone()), Access::Pull)?;
        let told = answer.header("Date").map(str::to_owned);
        if answer.status() != 404 && !(answer.status() == 403 && self.may_push()?) {
            answer.accept()?;
        }
        told.as_deref()
            .and_then(seconds_of)
            .ok_or_else(|| ClientError::BadAnswer {
                url,
                what: "the registry does not say what time it is (no Date in its answer)"
                    .to_owned(),
            })
    }

    /// All tags that `keep` wants. A repository that does not exist has none; one that denies to be listed, but may
    /// be pushed to, does not exist yet: some registries give rights to what is there only.
    pub fn tags(&self, keep: &dyn Fn(&str) -> bool) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        let mut next = Some(self.url(&format!("tags/list?n={PAGE_TAGS}")));
        while let Some(url) = next {
            // Its pages are the registry's own: what a link to elsewhere says is not believed.
            if !self.is_own(&url) || seen.len() >= PAGES_MAX || !seen.insert(url.clone()) {
                return Err(ClientError::BadAnswer {
                    url,
                    what: "the list of tags does not end".to_owned(),
                });
            }
            let answer = self.send(&Call::get(url), Access::Pull)?;
            // A later page that is refused leaves a part, which is not the list.
            let is_first = seen.len() == 1;
            if is_first && (answer.status() == 404 || answer.status() == 403 && self.may_push()?) {
                break;
            }
            let answer = answer.accept()?;
            next = answer
                .header("Link")
                .and_then(next_page)
                .and_then(|target| self.absolute(target));
            let page: Page = answer.json()?;
            found.extend(
                page.tags
                    .unwrap_or_default()
                    .into_iter()
                    .filter(|tag| keep(tag)),
            );
        }
        Ok(found)
    }
}

/// A time as HTTP's headers have it.
fn seconds_of(header: &str) -> Option<i64> {
    let parser = jiff::fmt::rfc2822::DateTimeParser::new();
    let at = parser.parse_timestamp(header.trim()).ok()?;
    Some(at.as_second())
}

/// The target of `<target>; rel="next"` (RFC 8288).
fn next_page(header: &str) -> Option<&str> {
    header.split(',').find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = parameters.split(';').any(|parameter| {
            let parameter = parameter.trim();
            parameter == "rel=next" || parameter == r#"rel="next""#
        });
        is_next.then_some(target)
    })
}

#[cfg(test)]
mod tests {
    use super::{next_page, seconds_of};

    #[test]
    fn d10_the_registrys_time_is_read() {
        let at = seconds_of("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(at, Some(784_111_777));
        for none in ["", "yesterday", "Sun, 06 Nov", "784111777"] {
            assert_eq!(seconds_of(none), None, "{none}");
        }
    }

    #[test]
    fn the_next_page_is_found_among_links() {
        assert_eq!(
            next_page(r#"</v2/a/tags/list?last=b&n=2>; rel="next""#),
            Some("/v2/a/tags/list?last=b&n=2")
        );
        assert_eq!(
            next_page("<x>; rel=prev, <y>; title=t; rel=next"),
            Some("y")
        );
        for none in ["", "<x>", "x; rel=next", r#"<x>; rel="prev""#] {
            assert_eq!(next_page(none), None, "{none}");
        }
    }
}
