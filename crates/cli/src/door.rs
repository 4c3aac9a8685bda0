//! A substituter's door: what Nix asks of a binary cache, answered on this machine.
//!
//! ```text
//! /<cache>/nix-cache-info
//! /<cache>/public-key          name:base64, one a line
//! /<cache>/<hash>.narinfo
//! /<cache>/nar/…
//! ```
//! Other users of the machine can connect, too; so all this may lie below a name that they do not know.

use crate::failure::Failure;
use firn_client::{
    ClientError,
    error::Result,
    substituter::{ServerSource, Substituter},
};
use firn_formats::nix::{CacheInfo, PublicKey, store_path::STORE_DIR};
use firn_server::loopback::{LoopbackAnswer, LoopbackDoor};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Asked before cache.nixos.org, whose priority is 40.
const PRIORITY: u32 = 30;
/// A server that could not be reached is left alone for so long: each try would take seconds.
const SERVER_PAUSE: Duration = Duration::from_secs(30);

const NARINFO: &str = "text/x-nix-narinfo";
const NAR: &str = "application/x-nix-nar";

/// The door of one cache.
pub(crate) struct NixDoor {
    cache: String,
    /// `/` and what all paths begin with before the cache's name; or nothing.
    secret: String,
    substituter: Arc<Substituter>,
    server: Option<PassedOn>,
}

/// A server whose paths are offered with its own signatures. NARs are put together here where it tells how they are
/// stored; all else is passed on as it is.
pub(crate) struct PassedOn {
    server: Arc<ServerSource>,
    keys: Vec<PublicKey>,
    away_until: Mutex<Option<Instant>>,
}

impl PassedOn {
    pub(crate) fn new(server: Arc<ServerSource>, keys: Vec<PublicKey>) -> Self {
        Self {
            server,
            keys,
            away_until: Mutex::default(),
        }
    }

    /// Asks the server, unless it was away a moment ago.
    fn ask<T>(
        &self,
        ask: impl FnOnce(&Arc<ServerSource>) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let lock = || {
            self.away_until
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if lock().is_some_and(|until| Instant::now() < until) {
            return Ok(None);
        }
        let answer = ask(&self.server);
        if let Err(error @ ClientError::Unreachable { .. }) = &answer {
            let url = self.server.url();
            tracing::warn!(url, %error, "the server is left alone for a while");
            *lock() = Some(Instant::now() + SERVER_PAUSE);
        }
        answer
    }
}

impl NixDoor {
    pub(crate) fn new(
        cache: &str,
        substituter: Arc<Substituter>,
        server: Option<PassedOn>,
    ) -> Self {
        Self {
            cache: cache.to_owned(),
            secret: String::new(),
            substituter,
            server,
        }
    }

    /// Behind a name that only those know who are told.
    pub(crate) fn behind(mut self, secret: &str) -> Self {
        self.secret = format!("/{secret}");
        self
    }

    /// What Nix must trust.
    pub(crate) fn public_keys(&self) -> Vec<PublicKey> {
        let mut keys = vec![self.substituter.public_key()];
        keys.extend(self.server.iter().flat_map(|server| server.keys.clone()));
        keys
    }

    fn answer(&self, path: &str) -> Result<LoopbackAnswer> {
        match path {
            "nix-cache-info" => return Ok(text(cache_info())),
            "public-key" => {
                let keys = self.public_keys();
                let lines: Vec<String> = keys.iter().map(|key| format!("{key}\n")).collect();
                return Ok(text(lines.concat()));
            }
            _ => {}
        }
        if let Some(hash) = path.strip_suffix(".narinfo") {
            return self.narinfo(hash);
        }
        let Some(name) = path.strip_prefix("nar/") else {
            return Ok(LoopbackAnswer::NotFound);
        };
        self.nar(path, name)
    }

    fn narinfo(&self, hash: &str) -> Result<LoopbackAnswer> {
        let here = self.substituter.narinfo(&self.cache, hash)?;
        let found = match (here, &self.server) {
            (None, Some(server)) => server.ask(|server| server.narinfo(hash))?,
            (here, _) => here,
        };
        Ok(
            found.map_or(LoopbackAnswer::NotFound, |narinfo| LoopbackAnswer::Bytes {
                media_type: NARINFO,
                bytes: narinfo.into_bytes(),
            }),
        )
    }

    fn nar(&self, path: &str, name: &str) -> Result<LoopbackAnswer> {
        let stream = |length, reader| LoopbackAnswer::Stream {
            media_type: NAR,
            length,
            reader,
        };
        if let Some(nar) = self.substituter.nar(&self.cache, name)? {
            return Ok(stream(nar.length, nar.reader));
        }
        let Some(server) = &self.server else {
            return Ok(LoopbackAnswer::NotFound);
        };
        let assembled = server.ask(|server| self.substituter.server_nar(server, name))?;
        if let Some(nar) = assembled {
            return Ok(stream(nar.length, nar.reader));
        }
        let passed = server.ask(|server| server.pass_on(path))?;
        Ok(passed.map_or(LoopbackAnswer::NotFound, |passed| {
            stream(passed.length, passed.reader)
        }))
    }
}

fn text(text: String) -> LoopbackAnswer {
    LoopbackAnswer::Bytes {
        media_type: "text/plain; charset=utf-8",
        bytes: text.into_bytes(),
    }
}

fn cache_info() -> String {
    CacheInfo {
        store_dir: STORE_DIR.to_owned(),
        want_mass_query: true,
        priority: PRIORITY,
    }
    .to_string()
}

impl LoopbackDoor for NixDoor {
    fn get(&self, path: &str) -> LoopbackAnswer {
        let below = path
            .strip_prefix(self.secret.as_str())
            .and_then(|path| path.strip_prefix('/'))
            .and_then(|path| path.strip_prefix(self.cache.as_str()))
            .and_then(|path| path.strip_prefix('/'));
        let Some(below) = below else {
            return LoopbackAnswer::NotFound;
        };
        self.answer(below).unwrap_or_else(|error| {
            tracing::error!(path, error = &error as &dyn std::error::Error, "failed");
            LoopbackAnswer::Failed(Failure::of(&error).message().to_owned())
        })
    }
}
