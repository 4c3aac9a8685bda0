//! A whole server in this process, in a folder of its own, on a free port of the loopback.

use crate::folder::bytes_below;
use firn_formats::actions::Scope;
use firn_formats::admin::{ActionsGrant, Right, TokenCreate};
use firn_server::{Config, Running};
use firn_store::CollectionOptions;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// A server for a test. Its folder goes with it.
pub struct TestServer {
    // Dropped first: a server stops before its folder goes.
    running: Option<Running>,
    config: Config,
    admin_token: String,
    _folder: tempfile::TempDir,
}

impl TestServer {
    /// With the defaults: cache `main`, public to pull from.
    ///
    /// # Panics
    /// If it does not start: a test has nothing to go on with.
    pub fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// With a configuration changed before the start.
    ///
    /// # Panics
    /// As [`TestServer::start`].
    #[allow(clippy::expect_used)]
    pub fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut config = Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            data: folder.path().join("data"),
            drain_seconds: 5,
            ..Config::default()
        };
        change(&mut config);
        let running = firn_server::start(config.clone()).expect("the server starts");
        let admin_token =
            std::fs::read_to_string(running.admin_token_path()).expect("the admin token");
        Self {
            running: Some(running),
            config,
            admin_token: admin_token.trim().to_owned(),
            _folder: folder,
        }
    }

    /// The server itself.
    ///
    /// # Panics
    /// If it was stopped.
    #[allow(clippy::expect_used)]
    pub fn running(&self) -> &Running {
        self.running.as_ref().expect("the server runs")
    }

    /// `http://127.0.0.1:PORT`, without a slash at the end.
    pub fn url(&self) -> String {
        self.running().url().to_owned()
    }

    /// `127.0.0.1:PORT`, as image names have it.
    pub fn host(&self) -> String {
        self.running().address().to_string()
    }

    /// The token that may do everything.
    pub fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        &self.config.data
    }

    /// Bytes of its packs.
    pub fn pack_bytes(&self) -> u64 {
        bytes_below(&self.data().join("packs"))
    }

    /// Takes away all that nothing needs, to the last byte and without any grace.
    ///
    /// # Panics
    /// If the store fails.
    #[allow(clippy::expect_used)]
    pub fn collect(&self) {
        let options = CollectionOptions {
            grace: Duration::ZERO,
            dead_percent: 0,
            dead_bytes_min: 1,
            ..CollectionOptions::default()
        };
        let store = &self.running().services().store;
        store.collect(&options, &|_| true).expect("a collection");
    }

    /// A new token.
    ///
    /// # Panics
    /// If it cannot be made.
    #[allow(clippy::expect_used)]
    pub fn token(&self, caches: &[&str], allow: &[Right]) -> String {
        let request = TokenCreate {
            caches: caches.iter().map(|&cache| cache.to_owned()).collect(),
            allow: allow.to_vec(),
            expires_in: None,
            note: None,
            actions: None,
        };
        let tokens = self.running().services().access.tokens();
        tokens.create(&request).expect("a token").token
    }

    /// A new token for the Actions cache of a repository in a cache.
    ///
    /// # Panics
    /// If it cannot be made.
    #[allow(clippy::expect_used)]
    pub fn actions_token(&self, cache: &str, repository: &str, scopes: &[Scope]) -> String {
        let request = TokenCreate {
            caches: vec![cache.to_owned()],
            allow: Vec::new(),
            expires_in: None,
            note: None,
            actions: Some(ActionsGrant {
                repository: repository.to_owned(),
                scopes: scopes.to_vec(),
            }),
        };
        let tokens = self.running().services().access.tokens();
        tokens.create(&request).expect("a token").token
    }

    /// Stops it, keeping the folder.
    ///
    /// # Panics
    /// If it does not stop cleanly.
    #[allow(clippy::expect_used)]
    pub fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            self.config.listen = running.address();
            running.stop().expect("the server stops");
        }
    }

    /// Stops it and starts it again on the same folder and port.
    ///
    /// # Panics
    /// If it does not stop or start.
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// Starts a stopped server on its folder and port.
    ///
    /// # Panics
    /// If it does not start.
    #[allow(clippy::expect_used)]
    pub fn start_again(&mut self) {
        self.running = Some(firn_server::start(self.config.clone()).expect("the server starts"));
    }
}
