//! Tags in pages: docker-registry gives all of them at once.

use super::Answer;
use super::message::{Head, get};

/// At most `most` tags, and a link to the next ones.
pub(super) fn tags(registry: &str, head: &Head, most: usize) -> Answer {
    let (status, body) = get(registry, head.path()).expect("docker-registry answers");
    if status == 404 {
        // Rights belong to packages, and there is none yet.
        return Answer::error(403, "DENIED", "permission_denied");
    }
    if status != 200 {
        return Answer::new(status, body).header("Content-Type", "application/json");
    }
    let answer: serde_json::Value = serde_json::from_slice(&body).expect("tags are JSON");
    let mut tags: Vec<&str> = answer["tags"]
        .as_array()
        .map(|tags| tags.iter().filter_map(serde_json::Value::as_str).collect())
        .unwrap_or_default();
    tags.sort_unstable();
    let wanted = head.parameter("n").and_then(|text| text.parse().ok());
    let most = wanted.unwrap_or(most).min(most);
    let last = head.parameter("last").unwrap_or_default();
    let begin = tags.partition_point(|tag| *tag <= last.as_str());
    let rest = tags.get(begin..).unwrap_or_default();
    let (page, later) = rest.split_at(rest.len().min(most));
    let answer = Answer::json(
        200,
        &serde_json::json!({"name": answer["name"], "tags": page}),
    );
    match page.last() {
        Some(last) if !later.is_empty() => {
            let next = format!(r#"<{}?last={last}&n={most}>; rel="next""#, head.path());
            answer.header("Link", &next)
        }
        _ => answer,
    }
}
