//! `firn push` as the protocol wants it, also when the server or the network fails.

use crate::fixture::Fixture;
use crate::scripted_server::{Fault, ScriptedServer};
use firn_client::{
    ClientError,
    api::Server,
    http::ServerUrl,
    progress::Silent,
    push::{PushReport, push},
};
use firn_formats::Sha256;

impl Fixture {
    fn push(&self, server: &ScriptedServer) -> Result<PushReport, ClientError> {
        let url = ServerUrl::parse(&server.url).expect("url");
        let target = Server::new(url, Some("token".to_owned()))?;
        push(&target, "main", &self.store, &self.closure, &Silent)
    }
}

#[test]
fn a_cold_push_sends_each_chunk_once_and_publishes_everything() {
    let fixture = Fixture::new(40);
    let server = ScriptedServer::start(&[]);
    let report = fixture.push(&server).expect("pushed");
    let state = server.state();
    assert_eq!(report.paths_total, 40);
    assert_eq!(report.paths_pushed, 40);
    assert_eq!(state.visible.len(), 40);
    assert_eq!(
        state.frames_received,
        state.chunks.len(),
        "no chunk came twice"
    );
    assert_eq!(report.chunks_sent as usize, state.chunks.len());
    assert!(
        report.chunks_total > report.chunks_sent,
        "the shared file is sent once"
    );
    assert_eq!(report.bytes_total, fixture.closure.nar_bytes());
    let sent: u64 = report.bytes_sent;
    assert!(
        sent > 40 * 300_000 && sent < 40 * 320_000 + 300_000,
        "{sent}"
    );
    assert!(
        state
            .requests
            .last()
            .is_some_and(|line| line.starts_with("DELETE"))
    );
}

#[test]
fn a_push_without_news_is_one_small_request() {
    let fixture = Fixture::new(30);
    let server = ScriptedServer::start(&[]);
    fixture.push(&server).expect("pushed");
    server.state().requests.clear();
    let report = fixture.push(&server).expect("pushed again");
    assert_eq!(report.paths_pushed, 0);
    assert_eq!(
        server.state().requests,
        ["POST /api/v1/push/begin?cache=main"]
    );
    assert!(report.bytes_sent < 2048, "{}", report.bytes_sent);
}

#[test]
fn what_is_cached_is_not_read() {
    let fixture = Fixture::new(3);
    let server = ScriptedServer::start(&[]);
    let first = fixture.closure.paths[0].path.clone();
    server.state().visible.insert(first.to_string());
    std::fs::remove_dir_all(fixture.store.physical(&first)).expect("removed");
    let report = fixture.push(&server).expect("pushed");
    assert_eq!(report.paths_pushed, 2);
}

#[test]
fn remembered_paths_are_not_read_again() {
    let mut fixture = Fixture::new(3);
    let cache = tempfile::tempdir().expect("a folder");
    fixture.store = fixture.store.with_cache_dir(cache.path());
    let full = ScriptedServer::start(&[]);
    fixture.push(&full).expect("pushed");
    // A server that has all chunks but no path needs to be told the lists and nothing else.
    full.state().visible.clear();
    for info in &fixture.closure.paths {
        std::fs::remove_dir_all(fixture.store.physical(&info.path)).expect("removed");
    }
    let report = fixture.push(&full).expect("pushed from memory");
    assert_eq!((report.paths_pushed, report.chunks_sent), (3, 0));
}

#[test]
fn cut_connections_and_busy_servers_are_tried_again() {
    for request in ["/begin", "/blobs", "/frames", "/publish", "DELETE"] {
        for fault in [Fault::Cut, Fault::Busy] {
            let fixture = Fixture::new(4);
            let server = ScriptedServer::start(&[(request, fault)]);
            let report = fixture.push(&server).expect(request);
            assert_eq!(report.paths_pushed, 4, "{request} {fault:?}");
            assert_eq!(server.state().visible.len(), 4);
            assert!(server.state().faults.is_empty());
        }
    }
}

#[test]
fn a_forgotten_session_or_chunk_is_brought_again() {
    for request in ["/blobs", "/frames", "/publish"] {
        for fault in [Fault::ForgetSession, Fault::ForgetChunks] {
            let fixture = Fixture::new(6);
            let server = ScriptedServer::start(&[(request, fault)]);
            fixture.push(&server).expect(request);
            assert_eq!(server.state().visible.len(), 6, "{request} {fault:?}");
        }
    }
}

#[test]
fn a_path_that_is_not_what_the_database_says_is_refused() {
    let mut fixture = Fixture::new(3);
    fixture.closure.paths[1].nar_hash = Sha256::of(b"something else");
    let server = ScriptedServer::start(&[]);
    let error = fixture.push(&server).expect_err("refused");
    assert_eq!(error.status(), Some(422));
    assert!(
        !server
            .state()
            .visible
            .contains(&fixture.closure.paths[2].path.to_string())
    );
}

#[test]
fn a_path_that_is_gone_fails_with_its_name() {
    let fixture = Fixture::new(3);
    let gone = fixture.store.physical(&fixture.closure.paths[1].path);
    std::fs::remove_dir_all(&gone).expect("removed");
    let server = ScriptedServer::start(&[]);
    let error = fixture.push(&server).expect_err("gone");
    assert!(
        error.to_string().contains(&gone.display().to_string()),
        "{error}"
    );
}
