//! A substituter's door: what Nix asks of a binary cache, answered on this machine.
//!
//! ```text
//! /<cache>/nix-cache-info
//! /<cache>/public-key          name:base64, one a line
//! /<cache>/<hash>.narinfo
//! /<cache>/nar/…
//! ```

use crate::failure::Failure;
use firn_client::{
    ClientError,
    error::Result,
    pull::{BinaryCache, Passed},
    substituter::Substituter,
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
    substituter: Arc<Substituter>,
    server: Option<PassedOn>,
}

/// A binary cache whose answers are passed on as they are, signatures and all.
pub(crate) struct PassedOn {
    cache: BinaryCache,
    keys: Vec<PublicKey>,
    away_until: Mutex<Option<Instant>>,
}

impl PassedOn {
    pub(crate) fn new(cache: BinaryCache, keys: Vec<PublicKey>) -> Self {
        Self {
            cache,
            keys,
            away_until: Mutex::default(),
        }
    }

    fn get(&self, path: &str) -> Result<Option<Passed>> {
        let lock = || {
            self.away_until
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if lock().is_some_and(|until| Instant::now() < until) {
            return Ok(None);
        }
        let passed = self.cache.pass_on(path);
        if let Err(error @ ClientError::Unreachable { .. }) = &passed {
            let url = self.cache.url();
            tracing::warn!(url, %error, "the server is left alone for a while");
            *lock() = Some(Instant::now() + SERVER_PAUSE);
        }
        passed
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
            substituter,
            server,
        }
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
            if let Some(narinfo) = self.substituter.narinfo(&self.cache, hash)? {
                return Ok(LoopbackAnswer::Bytes {
                    media_type: NARINFO,
                    bytes: narinfo.into_bytes(),
                });
            }
            return self.pass_on(path, NARINFO);
        }
        let Some(name) = path.strip_prefix("nar/") else {
            return Ok(LoopbackAnswer::NotFound);
        };
        match self.substituter.nar(&self.cache, name)? {
            Some(nar) => Ok(LoopbackAnswer::Stream {
                media_type: NAR,
                length: nar.length,
                reader: nar.reader,
            }),
            None => self.pass_on(path, NAR),
        }
    }

    fn pass_on(&self, path: &str, media_type: &'static str) -> Result<LoopbackAnswer> {
        let passed = match &self.server {
            Some(server) => server.get(path)?,
            None => None,
        };
        Ok(
            passed.map_or(LoopbackAnswer::NotFound, |passed| LoopbackAnswer::Stream {
                media_type,
                length: passed.length,
                reader: passed.reader,
            }),
        )
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
            .strip_prefix('/')
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
