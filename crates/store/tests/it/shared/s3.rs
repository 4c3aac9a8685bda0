//! The suite of stores without a server, in a bucket of a real S3 server.

use firn_store::shared::{Backend, S3Backend};
use firn_testkit::rigs::s3::S3;
use firn_testkit::shared_store::Place;
use std::sync::Arc;

fn new_place() -> Place {
    let server = S3::start();
    Box::new(move || {
        let agent = ureq::Agent::new_with_defaults();
        let backend = S3Backend::new(S3::BUCKET, "some/prefix", agent, server.settings());
        Arc::new(backend.unwrap())
    })
}

firn_testkit::shared_store_suite!(new_place);

#[test]
fn requests_are_counted_and_a_refusal_is_told() {
    let server = S3::start();
    let agent = ureq::Agent::new_with_defaults();
    let mut settings = server.settings();
    let backend = S3Backend::new(S3::BUCKET, "", agent.clone(), settings.clone()).unwrap();
    assert_eq!(backend.location(), "s3://bucket");
    assert_eq!(backend.segments().unwrap(), Vec::<String>::new());
    assert_eq!(backend.requests(), 1);
    settings.retain(|(name, _)| name != "AWS_SECRET_ACCESS_KEY");
    settings.push(("AWS_SECRET_ACCESS_KEY".into(), "wrong".into()));
    let stranger = S3Backend::new(S3::BUCKET, "", agent, settings).unwrap();
    let error = stranger.segments().unwrap_err().to_string();
    assert_eq!(error, "s3://bucket: listing");
}
