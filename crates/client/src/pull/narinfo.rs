//! A binary cache as it is read: narinfos, their signatures, NARs.

use crate::{
    credentials::Credential,
    error::{ClientError, Result},
    http::{Answer, Call, Http, ServerUrl, read_range},
    push::work::lock,
};
use firn_formats::nix::{NarInfo, PublicKey, StorePath, narinfo::NARINFO_BYTES_MAX};
use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    sync::{Condvar, Mutex, PoisonError},
};

/// Requests under way at once.
const PARALLEL: usize = 8;

/// What a cache answered, on its way to somebody else.
pub struct Passed {
    /// Bytes in all.
    pub length: u64,
    /// The bytes.
    pub reader: Box<dyn std::io::Read + Send>,
}

/// A binary cache of any make.
pub struct BinaryCache {
    http: Http,
    url: ServerUrl,
    token: Option<String>,
    authorization: Option<String>,
}

// By hand: the token is never shown.
impl std::fmt::Debug for BinaryCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let url = self.url.as_str();
        f.debug_struct("BinaryCache")
            .field("url", &url)
            .finish_non_exhaustive()
    }
}

impl BinaryCache {
    /// The cache at a substituter's URL.
    pub fn new(url: ServerUrl, token: Option<String>) -> Result<Self> {
        Ok(Self {
            http: Http::new(PARALLEL)?,
            url,
            authorization: token
                .clone()
                .map(|token| Credential::Token(token).basic_header()),
            token,
        })
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// The line of a netrc file that gives our rights to Nix.
    pub(super) fn netrc_line(&self) -> Option<String> {
        let token = self.token.as_ref()?;
        Some(format!(
            "machine {} login firn password {token}",
            self.url.host()
        ))
    }

    /// Fails as the cache refuses us, or cannot be reached.
    pub fn check(&self) -> Result<()> {
        self.get("nix-cache-info")?.accept().map(drop)
    }

    pub(super) fn get(&self, path: &str) -> Result<Answer> {
        let call = Call::get(self.url.join(path)).authorization(self.authorization.as_deref());
        self.http.send(&call)
    }

    /// The answer to a path below the cache's URL, unread; `None` if it has nothing there. Nothing is checked:
    /// whoever it is passed on to does that.
    pub fn pass_on(&self, path: &str) -> Result<Option<Passed>> {
        let answer = self.get(path)?;
        if matches!(answer.status(), 404 | 410) {
            return Ok(None);
        }
        let answer = answer.accept()?;
        let length = answer.header("Content-Length").map(str::parse);
        let Some(Ok(length)) = length else {
            return Err(ClientError::BadAnswer {
                url: self.url.join(path),
                what: "it does not tell its length".to_owned(),
            });
        };
        Ok(Some(Passed {
            length,
            reader: Box::new(answer.into_reader()),
        }))
    }

    /// A narinfo as it stands, by its path's hash part; `None` if there is none.
    pub(crate) fn narinfo_text(&self, hash: &str) -> Result<Option<String>> {
        let file = format!("{hash}.narinfo");
        let answer = self.get(&file)?;
        if matches!(answer.status(), 404 | 410) {
            return Ok(None);
        }
        let bytes = answer.accept()?.bytes()?;
        let bad = |what: String| ClientError::BadAnswer {
            url: self.url.join(&file),
            what,
        };
        if bytes.len() > NARINFO_BYTES_MAX {
            return Err(bad(format!("a narinfo of {} bytes", bytes.len())));
        }
        let text = String::from_utf8(bytes).map_err(|error| bad(error.to_string()))?;
        Ok(Some(text))
    }

    /// The NAR of a path, whoever signed it, for who checks what is in it; `None` if there is none.
    pub(crate) fn nar(&self, path: &StorePath) -> Result<Option<Box<dyn std::io::Read + Send>>> {
        let Some(text) = self.narinfo_text(&path.hash().to_string())? else {
            return Ok(None);
        };
        let info = NarInfo::parse(&text).map_err(|error| ClientError::BadAnswer {
            url: self.url.join(&format!("{}.narinfo", path.hash())),
            what: error.to_string(),
        })?;
        let body = self.get(&info.url)?.accept()?.into_reader();
        // A cache may say any size; nobody reads beyond the one it says.
        let nar = super::decompress(&info, body)?;
        Ok(Some(Box::new(std::io::Read::take(nar, info.nar_size))))
    }

    /// Bytes of a file, exactly as many as asked for; whoever uses them has a checksum.
    pub(crate) fn range(&self, path: &str, range: Range<u64>) -> Result<Vec<u8>> {
        let url = self.url.join(path);
        read_range(range, &|value| {
            let call = Call::get(url.clone()).header("Range", value);
            self.http
                .send(&call.authorization(self.authorization.as_deref()))
        })
    }

    /// The narinfo of a path, checked to be of that path and signed by one of `keys`.
    pub(super) fn narinfo(&self, path: &StorePath, keys: &[PublicKey]) -> Result<NarInfo> {
        let answer = self.get(&format!("{}.narinfo", path.hash()))?;
        if matches!(answer.status(), 403 | 404 | 410) {
            return Err(ClientError::NotCached {
                path: path.absolute(),
                url: self.url.to_string(),
            });
        }
        let url = self.url.join(&format!("{}.narinfo", path.hash()));
        let bad = |what: String| ClientError::BadAnswer {
            url: url.clone(),
            what,
        };
        let bytes = answer.accept()?.bytes()?;
        if bytes.len() > NARINFO_BYTES_MAX {
            return Err(bad(format!("a narinfo of {} bytes", bytes.len())));
        }
        let text = std::str::from_utf8(&bytes).map_err(|error| bad(error.to_string()))?;
        let info = NarInfo::parse(text).map_err(|error| bad(error.to_string()))?;
        if info.store_path != *path {
            return Err(bad(format!("it is of {}", info.store_path.absolute())));
        }
        let fingerprint = info.fingerprint();
        let trusted = info
            .signatures
            .iter()
            .any(|signature| keys.iter().any(|key| key.verify(&fingerprint, signature)));
        if !trusted {
            return Err(ClientError::Untrusted {
                path: path.absolute(),
            });
        }
        Ok(info)
    }

    /// The narinfos of the closures of `roots`, asked for in parallel, except below what `have` has.
    pub(super) fn closure(
        &self,
        roots: &[StorePath],
        keys: &[PublicKey],
        have: &(dyn Fn(&StorePath) -> bool + Sync),
    ) -> Result<Vec<NarInfo>> {
        let walk = Walk {
            state: Mutex::new(State {
                seen: roots.iter().cloned().collect(),
                queue: roots.iter().filter(|path| !have(path)).cloned().collect(),
                ..State::default()
            }),
            changed: Condvar::new(),
        };
        std::thread::scope(|scope| {
            for _ in 0..PARALLEL {
                scope.spawn(|| walk.work(self, keys, have));
            }
        });
        let state = walk
            .state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        match state.failure {
            Some(error) => Err(error),
            None => Ok(state.found.into_values().collect()),
        }
    }
}

#[derive(Default)]
struct State {
    seen: HashSet<StorePath>,
    queue: Vec<StorePath>,
    /// Narinfos being asked for.
    busy: usize,
    found: HashMap<StorePath, NarInfo>,
    failure: Option<ClientError>,
}

struct Walk {
    state: Mutex<State>,
    changed: Condvar,
}

impl Walk {
    fn work(
        &self,
        cache: &BinaryCache,
        keys: &[PublicKey],
        have: &(dyn Fn(&StorePath) -> bool + Sync),
    ) {
        while let Some(path) = self.next() {
            let outcome = cache.narinfo(&path, keys);
            let mut state = lock(&self.state);
            state.busy -= 1;
            match outcome {
                Ok(info) => {
                    for reference in &info.references {
                        if state.seen.insert(reference.clone()) && !have(reference) {
                            state.queue.push(reference.clone());
                        }
                    }
                    state.found.insert(path, info);
                }
                Err(error) => {
                    state.failure.get_or_insert(error);
                }
            }
            self.changed.notify_all();
        }
    }

    /// The next path; `None` when nothing is left, or something failed.
    fn next(&self) -> Option<StorePath> {
        let mut state = lock(&self.state);
        loop {
            if state.failure.is_some() {
                return None;
            }
            if let Some(path) = state.queue.pop() {
                state.busy += 1;
                return Some(path);
            }
            if state.busy == 0 {
                return None;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}
