//! Malformed requests by the thousand: right answers, and nothing left behind.

use super::{Job, staged};
use firn_formats::actions::Scope;
use firn_testkit::TestServer;
use firn_testkit::hostile;

#[test]
fn ten_thousand_malformed_requests_are_answered_and_leave_nothing() {
    let server = TestServer::start_with(|config| {
        config.limits.actions_idle_seconds_max = 1;
        config.limits.actions_uploads_per_minute_max = 0;
    });
    let scopes = [Scope::write("refs/heads/main")];
    let job = Job::new(&server, "acme/web", &scopes);
    job.save("key", b"bytes");
    let token = server.actions_token("main", "acme/web", &scopes);
    let upload = job.reserve("hostile");
    let download = job.download("key").unwrap();
    let requests = hostile::actions::requests(&upload, &download);
    let report = hostile::run_requests(&server.host(), &token, &requests, 7, 10_000);
    assert!(report.faults.is_empty(), "{:#?}", report.faults);
    assert!(report.statuses.len() > 5, "{:?}", report.statuses);
    println!("{:?}", report.statuses);
    // The server is well, and what was begun ends.
    assert_eq!(job.restore("key", &[]).unwrap().1, b"bytes");
    let store = &server.running().services().store;
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while staged(&server) > 0 {
        store.staged_reap().unwrap();
        assert!(std::time::Instant::now() < until, "parts are left");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}
