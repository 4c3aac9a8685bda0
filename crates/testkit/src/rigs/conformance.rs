//! The conformance suites of the OCI distribution specification: their own programs, their own reports.

use super::program;
use super::serve::Server;
use std::process::Command;
use tempfile::TempDir;

/// What a suite's report says.
#[derive(Debug, Default)]
pub struct Report {
    /// Names of tests that passed, in order.
    pub passed: Vec<String>,
    /// Names of tests that were skipped.
    pub skipped: Vec<String>,
    /// Names of the others.
    pub failed: Vec<String>,
    /// What the report itself counts: one test may judge several requests.
    pub counted: usize,
}

/// Everything of the main branch's suite that a setting can switch on, but for sparse manifests: those name
/// blobs that are not there, and Firn takes none of them (rule 4).
const ALL_ON: [&str; 30] = [
    "API_PULL",
    "API_PUSH",
    "API_BLOBS_ATOMIC",
    "API_BLOBS_DELETE",
    "API_BLOBS_DIGEST_HEADER",
    "API_BLOBS_MOUNT_ANONYMOUS",
    "API_BLOBS_UPLOAD_CANCEL",
    "API_MANIFESTS_ATOMIC",
    "API_MANIFESTS_DELETE",
    "API_MANIFESTS_DIGEST_HEADER",
    "API_MANIFESTS_TAG_PARAM",
    "API_TAGS_ATOMIC",
    "API_TAGS_DELETE",
    "API_TAGS_LIST",
    "API_REFERRER",
    "DATA_IMAGE",
    "DATA_INDEX",
    "DATA_INDEX_LIST",
    "DATA_ARTIFACT",
    "DATA_SUBJECT",
    "DATA_SUBJECT_MISSING",
    "DATA_ARTIFACT_LIST",
    "DATA_SUBJECT_LIST",
    "DATA_DATA_FIELD",
    "DATA_NONDISTRIBUTABLE",
    "DATA_CUSTOM_FIELDS",
    "DATA_NO_LAYERS",
    "DATA_EMPTY_BLOB",
    "DATA_SHA512",
    "CACHE_AUTH",
];

/// Runs the suite of the specification's main branch; `only_defaults` leaves its settings as they come.
pub fn main_branch(server: &Server, only_defaults: bool) -> Report {
    let results = TempDir::new().expect("cannot make a temporary folder");
    let mut command = command("conformance", &results);
    command
        .env("OCI_VERSION", "1.1")
        .env("OCI_REGISTRY", server.address())
        .env("OCI_TLS", "disabled")
        .env("OCI_REPO1", "main/conformance1")
        .env("OCI_REPO2", "main/conformance2")
        .env("OCI_USERNAME", "conformance")
        .env("OCI_PASSWORD", server.token())
        .env("OCI_RESULTS_DIR", results.path());
    if !only_defaults {
        for name in ALL_ON {
            command.env(format!("OCI_{name}"), "true");
        }
    }
    report(&mut command, &results)
}

/// Runs the suite of 1.1 as it was before the one of the main branch. `extra` are settings beyond the repository's name and credentials.
pub fn of_1_1(server: &Server, repository: &str, extra: &[(&str, &str)]) -> Report {
    let results = TempDir::new().expect("cannot make a temporary folder");
    let mut command = command("conformance-1.1", &results);
    for section in ["PULL", "PUSH", "CONTENT_DISCOVERY", "CONTENT_MANAGEMENT"] {
        command.env(format!("OCI_TEST_{section}"), "1");
    }
    command
        .env("OCI_ROOT_URL", server.url())
        .env("OCI_NAMESPACE", format!("main/{repository}"))
        .env(
            "OCI_CROSSMOUNT_NAMESPACE",
            format!("main/{repository}-other"),
        )
        .env("OCI_USERNAME", "conformance")
        .env("OCI_PASSWORD", server.token())
        .env("OCI_HIDE_SKIPPED_WORKFLOWS", "0")
        .env("OCI_REPORT_DIR", results.path())
        .envs(extra.iter().copied());
    report(&mut command, &results)
}

/// Both read their settings from the environment, and a file in the folder they run in.
fn command(name: &str, folder: &TempDir) -> Command {
    let mut command = program::limited(&program::tool(name));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OCI_") {
            command.env_remove(name);
        }
    }
    command.current_dir(folder.path());
    command
}

/// A suite fails by its report: its exit status says nothing of tests that it did not run.
fn report(command: &mut Command, results: &TempDir) -> Report {
    let outcome = program::run(command);
    let junit = std::fs::read_to_string(results.path().join("junit.xml"))
        .unwrap_or_else(|error| panic!("there is no report ({error}): {outcome}"));
    let total = junit
        .split_once(" tests=\"")
        .and_then(|(_, rest)| rest.split_once('"'));
    let mut report = Report {
        counted: total.map_or(0, |(count, _)| count.parse().unwrap_or(0)),
        ..Report::default()
    };
    for element in junit.split("<testcase ").skip(1) {
        let attributes = element.split_once('>').map_or(element, |(first, _)| first);
        let value = |name: &str| {
            let rest = attributes.split_once(&format!("{name}=\""))?.1;
            Some(rest.split_once('"')?.0.to_owned())
        };
        let name = value("name").expect("a test has a name");
        match value("status").as_deref() {
            Some("passed") => report.passed.push(name),
            Some("skipped") => report.skipped.push(name),
            _ => report.failed.push(name),
        }
    }
    if !report.failed.is_empty() {
        println!("failed: {:#?}\n{outcome}", report.failed);
    }
    report
}
