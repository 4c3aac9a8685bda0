//! The official suites of the OCI distribution specification against `firn serve`. `make setup` compiles them.

use firn_testkit::rigs::conformance::{self, Report};

/// Prints what a suite counted; a run that counted less than it has is none.
fn counted(suite: &str, report: &Report, least: usize) {
    let Report {
        passed,
        skipped,
        failed,
    } = report;
    println!(
        "{suite}: {} passed, {} failed, {} skipped",
        passed.len(),
        failed.len(),
        skipped.len()
    );
    assert!(
        passed.len() >= least,
        "{} tests are not all of {suite}",
        passed.len()
    );
}

#[test]
fn the_suite_of_the_main_branch_passes_with_everything_on() {
    let server = crate::server();
    let report = conformance::main_branch(&server, false);
    counted("distribution-spec main, all on", &report, 990);
    assert_eq!(report.skipped, Vec::<String>::new());
}

#[test]
fn the_suite_of_the_main_branch_passes_as_it_comes() {
    let server = crate::server();
    let report = conformance::main_branch(&server, true);
    counted("distribution-spec main, as it comes", &report, 800);
    assert_eq!(report.skipped, Vec::<String>::new());
}

/// Each of its tests passes in one of the runs: some are either for a registry that takes pushes or for one
/// that has its content already, or for one that mounts without being told from where or for one that does not.
#[test]
fn the_suite_of_v1_1_1_passes_with_everything_on() {
    let server = crate::server();
    let first = [
        ("OCI_DELETE_MANIFEST_BEFORE_BLOBS", "1"),
        ("OCI_AUTOMATIC_CROSSMOUNT", "1"),
    ];
    let report = conformance::v1_1_1(&server, "first", &first);
    counted(
        "distribution-spec v1.1.1, manifests deleted first",
        &report,
        75,
    );
    assert_eq!(
        report
            .skipped
            .iter()
            .map(|name| tail(name))
            .collect::<Vec<_>>(),
        [""; 0]
    );
    let second = [("OCI_DELETE_MANIFEST_BEFORE_BLOBS", "0")];
    let report = conformance::v1_1_1(&server, "second", &second);
    counted("distribution-spec v1.1.1, blobs deleted first", &report, 75);
}

fn tail(name: &str) -> &str {
    name.rsplit_once("Tests ").map_or(name, |(_, tail)| tail)
}
