//! The official suites of the OCI distribution specification against `firn serve`. `make setup` compiles them.

use firn_testkit::rigs::conformance::{self, Report};

/// Prints what a suite counted; a run that counted less than it has is none.
fn counted(suite: &str, report: &Report, least: usize) {
    println!(
        "{suite}: {} tests, {} failed, {} skipped",
        report.counted,
        report.failed.len(),
        report.skipped.len()
    );
    let counted = report.counted;
    assert!(counted >= least, "{counted} tests are not all of {suite}");
    assert!(!report.passed.is_empty());
}

#[test]
fn the_suite_of_the_main_branch_passes_with_everything_on() {
    let server = crate::server();
    let report = conformance::main_branch(&server, false);
    counted("distribution-spec main, all on", &report, 980);
    assert_eq!(report.failed, Vec::<String>::new());
    assert_eq!(report.skipped, Vec::<String>::new());
}

/// Its own settings leave two things out, which the run above has in.
#[test]
fn the_suite_of_the_main_branch_passes_as_it_comes() {
    let server = crate::server();
    let report = conformance::main_branch(&server, true);
    counted("distribution-spec main, as it comes", &report, 840);
    assert_eq!(report.failed, Vec::<String>::new());
}

/// Some of its tests are for a registry that mounts without being told from where, others for one that does not;
/// some make the content that they read, others read what they are told is there. One wants 200 of the tags of a
/// repository that holds nothing any more; v1.1.1 took 404, which Firn answers, for right.
#[test]
fn the_suite_of_1_1_passes_with_everything_on() {
    let server = crate::server();
    let made = [
        ("OCI_DELETE_MANIFEST_BEFORE_BLOBS", "1"),
        ("OCI_AUTOMATIC_CROSSMOUNT", "1"),
    ];
    let report = conformance::of_1_1(&server, "first", &made);
    counted(
        "distribution-spec 1.1, manifests deleted first",
        &report,
        79,
    );
    let either = [
        "Get tag name from environment",
        "Cross-mounting of nonexistent blob should yield session id",
        "automatic content discovery disabled should return a 202",
        "Populate registry with test tags (no push)",
    ];
    let emptied = "GET request to tags list should reflect manifest deletion";
    assert_eq!(report.failed.len(), 1, "{:?}", report.failed);
    assert!(report.failed[0].ends_with(emptied), "{:?}", report.failed);
    for name in &report.skipped {
        assert!(either.iter().any(|known| name.ends_with(known)), "{name}");
    }
    let others = [("OCI_DELETE_MANIFEST_BEFORE_BLOBS", "0")];
    let report = conformance::of_1_1(&server, "second", &others);
    counted("distribution-spec 1.1, blobs deleted first", &report, 79);
    assert_eq!(report.failed.len(), 1, "{:?}", report.failed);
    assert!(report.failed[0].ends_with(emptied), "{:?}", report.failed);
}
