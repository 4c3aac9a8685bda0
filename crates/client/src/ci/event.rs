//! Who a job works for, from what the runner tells of it: what a stranger's code has built must not get into
//! the cache that others read.

use serde_json::Value;
use std::path::Path;

/// The environment of a job, as a function so that tests can give another.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The environment of this process; empty variables count as not set.
pub fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Why this job must not write, if it must not.
pub fn stranger(environment: Environment<'_>) -> Option<String> {
    github(environment).or_else(|| gitlab(environment))
}

/// GitHub, Gitea and Forgejo write the event into a file.
fn github(environment: Environment<'_>) -> Option<String> {
    let path = environment("GITHUB_EVENT_PATH")?;
    let bytes = std::fs::read(Path::new(&path)).ok()?;
    let event: Value = serde_json::from_slice(&bytes).ok()?;
    stranger_of_event(&event)
}

fn stranger_of_event(event: &Value) -> Option<String> {
    let own = &event["repository"];
    if let Some(request) = event
        .get("pull_request")
        .filter(|request| request.is_object())
    {
        let base = match request["base"]["repo"].is_object() {
            true => &request["base"]["repo"],
            false => own,
        };
        return differs(
            &request["head"]["repo"],
            base,
            "this pull request comes from",
        );
    }
    let run = event.get("workflow_run").filter(|run| run.is_object())?;
    differs(&run["head_repository"], own, "this run was started for")
}

/// A repository by its id, or its name where there is no id. One that was deleted is a stranger's.
fn differs(head: &Value, base: &Value, what: &str) -> Option<String> {
    let same = match (&head["id"], &base["id"]) {
        (Value::Number(head), Value::Number(base)) => head == base,
        _ => head["full_name"].is_string() && head["full_name"] == base["full_name"],
    };
    let name = head["full_name"].as_str().unwrap_or("a deleted repository");
    (!same).then(|| format!("{what} a fork, {name}"))
}

fn gitlab(environment: Environment<'_>) -> Option<String> {
    let source = environment("CI_MERGE_REQUEST_SOURCE_PROJECT_ID")?;
    let own =
        environment("CI_MERGE_REQUEST_PROJECT_ID").or_else(|| environment("CI_PROJECT_ID"))?;
    let name = environment("CI_MERGE_REQUEST_SOURCE_PROJECT_PATH").unwrap_or_default();
    (source != own).then(|| format!("this merge request comes from a fork, {name}"))
}

/// A name for the run that writes, for people: the workflow, the run, the repository.
pub fn job_name(environment: Environment<'_>) -> String {
    let first = |names: &[&str]| names.iter().find_map(|name| environment(name));
    let parts = [
        first(&["GITHUB_REPOSITORY", "CI_PROJECT_PATH"]),
        first(&["GITHUB_WORKFLOW", "CI_JOB_NAME"]),
        first(&["GITHUB_RUN_ID", "CI_JOB_ID"]),
        first(&["GITHUB_REF_NAME", "CI_COMMIT_REF_NAME"]),
    ];
    let text: Vec<String> = parts.into_iter().flatten().collect();
    match text.is_empty() {
        true => "a shell".to_owned(),
        false => text.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn forks_are_known_by_id_and_by_name() {
        let request = |head: Value, base: Value| {
            stranger_of_event(&json!({
                "repository": {"id": 1, "full_name": "acme/app"},
                "pull_request": {"head": {"repo": head}, "base": {"repo": base}},
            }))
        };
        let own = json!({"id": 1, "full_name": "acme/app"});
        let fork = json!({"id": 2, "full_name": "eve/app"});
        assert_eq!(request(own.clone(), own.clone()), None);
        // A rename between the two looks is no fork.
        let renamed = json!({"id": 1, "full_name": "acme/new"});
        assert_eq!(request(renamed, own.clone()), None);
        assert!(request(fork, own.clone()).is_some_and(|why| why.contains("eve/app")));
        assert!(request(Value::Null, own).is_some_and(|why| why.contains("deleted")));
        let names = request(json!({"full_name": "a/b"}), json!({"full_name": "a/b"}));
        assert_eq!(names, None);
    }

    #[test]
    fn other_events_are_looked_at_too() {
        assert_eq!(stranger_of_event(&json!({"ref": "refs/heads/main"})), None);
        let run = json!({
            "repository": {"id": 1},
            "workflow_run": {"head_repository": {"id": 2, "full_name": "eve/app"}},
        });
        assert!(stranger_of_event(&run).is_some());
        let gitlab = |name: &str| match name {
            "CI_MERGE_REQUEST_SOURCE_PROJECT_ID" => Some("7".to_owned()),
            "CI_MERGE_REQUEST_PROJECT_ID" => Some("8".to_owned()),
            _ => None,
        };
        assert!(stranger(&gitlab).is_some());
    }
}
