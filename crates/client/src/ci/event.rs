//! Who a job works for, from what the runner tells of it: what a stranger's code has built must not get into
//! the cache that others read.

use firn_formats::actions::is_trusted_event;
use serde_json::Value;
use std::path::Path;

/// The environment of a job, as a function so that tests can give another.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The environment of this process; empty variables count as not set.
pub fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Why this job must not write, if it must not. What cannot be told is a reason, too.
pub fn stranger(environment: Environment<'_>) -> Option<String> {
    github(environment).or_else(|| gitlab(environment))
}

/// GitHub, Gitea and Forgejo name the event and write it into a file.
fn github(environment: Environment<'_>) -> Option<String> {
    let path = environment("GITHUB_EVENT_PATH");
    let name = environment("GITHUB_EVENT_NAME");
    let on_runner = environment("GITHUB_ACTIONS").is_some_and(|value| value == "true");
    if !on_runner && path.is_none() {
        return None;
    }
    let Some(path) = path else {
        return Some("GITHUB_EVENT_PATH does not say why this job runs".to_owned());
    };
    let event = match read_event(Path::new(&path)) {
        Ok(event) => event,
        Err(error) => return Some(format!("the event file {path} cannot be read ({error})")),
    };
    stranger_of_event(&event).or_else(|| match name {
        Some(name) => untrusted(&name, &event),
        None => on_runner.then(|| "GITHUB_EVENT_NAME does not say why this job runs".to_owned()),
    })
}

fn read_event(path: &Path) -> std::io::Result<Value> {
    let event: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    match event.is_object() {
        true => Ok(event),
        false => Err(std::io::Error::other("it is not a JSON object")),
    }
}

/// Why an event of this name may run code of others.
fn untrusted(name: &str, event: &Value) -> Option<String> {
    let own_branch = name == "pull_request" && event["pull_request"].is_object();
    (!own_branch && !is_trusted_event(name))
        .then(|| format!("a job of the event {name:?} may run code of strangers"))
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

    /// Whether a job may save, by what its runner says of the event.
    fn saves(actions: bool, name: Option<&str>, file: Option<&str>) -> Result<(), String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("event.json");
        if let Some(text) = file {
            std::fs::write(&path, text).expect("written");
        }
        let environment = |variable: &str| match variable {
            "GITHUB_ACTIONS" => actions.then(|| "true".to_owned()),
            "GITHUB_EVENT_NAME" => name.map(str::to_owned),
            "GITHUB_EVENT_PATH" => Some(path.display().to_string()),
            _ => None,
        };
        stranger(&environment).map_or(Ok(()), Err)
    }

    #[test]
    fn s11_what_is_not_known_to_be_the_repositorys_own_does_not_save() {
        let own = r#"{"repository": {"id": 1}, "pull_request": {
            "head": {"repo": {"id": 1}}, "base": {"repo": {"id": 1}}}}"#;
        let fork = r#"{"repository": {"id": 1}, "pull_request": {
            "head": {"repo": {"id": 2}}, "base": {"repo": {"id": 1}}}}"#;
        let comment = r#"{"repository": {"id": 1}, "issue": {"pull_request": {"url": "u"}}}"#;
        let run = r#"{"repository": {"id": 1}, "workflow_run": {"head_repository": {"id": 1}}}"#;
        let plain = Some(r#"{"ref": "refs/heads/main"}"#);
        for event in ["push", "schedule", "workflow_dispatch", "merge_group"] {
            assert_eq!(saves(true, Some(event), plain), Ok(()), "{event}");
        }
        assert_eq!(saves(true, Some("pull_request"), Some(own)), Ok(()));
        for (name, file) in [
            (Some("pull_request"), Some(fork)),
            (Some("pull_request"), plain),
            (Some("pull_request_target"), Some(own)),
            (Some("issue_comment"), Some(comment)),
            (Some("workflow_run"), Some(run)),
            (Some("to come"), plain),
            (Some("push"), Some("{")),
            (Some("push"), Some("7")),
            (Some("push"), None),
            (None, plain),
        ] {
            assert!(saves(true, name, file).is_err(), "{name:?} {file:?}");
        }
        let nothing = |name: &str| (name == "GITHUB_ACTIONS").then(|| "true".to_owned());
        assert!(stranger(&nothing).is_some());
        // Elsewhere than on a runner.
        assert_eq!(stranger(&|_| None), None);
        assert_eq!(saves(false, None, plain), Ok(()));
    }
}
