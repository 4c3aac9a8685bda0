//! A server of the push protocol for one test: HTTP/1.1 on a free port, everything in memory, each
//! rule of the protocol checked, and faults by script.

use firn_chunks::{ChunkId, Decoder};
use firn_formats::push::{
    ApiError, ApiErrorCode, Begin, Begun, FramesAccepted, LayerDescriptor, ProposalAnswer, Publish,
    Published, decode_frames, decode_proposals, encode_answers,
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

/// What one request shall meet with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection is cut without an answer.
    Cut,
    /// 503.
    Busy,
    /// The session is forgotten, with its handles.
    ForgetSession,
    /// All chunks are forgotten.
    ForgetChunks,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) requests: Vec<String>,
    /// Path fragment of the request that fails, and how; each is used once.
    pub(crate) faults: Vec<(&'static str, Fault)>,
    pub(crate) chunks: HashMap<ChunkId, Vec<u8>>,
    pub(crate) frames_received: usize,
    pub(crate) published: Vec<Publish>,
    /// Base names.
    pub(crate) visible: HashSet<String>,
    /// What it says of layer keys, and whether it says that it has proven that.
    pub(crate) layers: BTreeMap<String, LayerDescriptor>,
    pub(crate) layers_proven: bool,
    blobs: Vec<Vec<ChunkId>>,
    session: u32,
    session_open: bool,
}

pub(crate) struct ScriptedServer {
    pub(crate) url: String,
    pub(crate) state: Arc<Mutex<State>>,
}

impl ScriptedServer {
    pub(crate) fn start(faults: &[(&'static str, Fault)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let state = Arc::new(Mutex::new(State {
            faults: faults.to_vec(),
            ..State::default()
        }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || connection(stream, &state));
            }
        });
        Self { url, state }
    }

    pub(crate) fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("state")
    }
}

fn connection(stream: TcpStream, state: &Mutex<State>) {
    let mut writer = stream.try_clone().expect("clone");
    let mut reader = BufReader::new(stream);
    while let Some((line, body)) = read_request(&mut reader) {
        let Some((status, answer)) = state.lock().expect("state").answer(&line, &body) else {
            return;
        };
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n",
            answer.len()
        );
        if writer
            .write_all(&[head.as_bytes(), &answer].concat())
            .is_err()
        {
            return;
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let target: Vec<&str> = line.split(' ').take(2).collect();
    Some((target.join(" "), body))
}

type Answer = (u16, Vec<u8>);

fn json(value: &impl serde::Serialize) -> Answer {
    (200, serde_json::to_vec(value).expect("json"))
}

fn refuse(code: ApiErrorCode) -> Answer {
    let error = ApiError {
        code,
        message: format!("{code:?}"),
        hint: None,
    };
    let body = serde_json::json!({ "error": error });
    (code.status(), body.to_string().into_bytes())
}

impl State {
    fn answer(&mut self, line: &str, body: &[u8]) -> Option<Answer> {
        self.requests.push(line.to_owned());
        let fault = self
            .faults
            .iter()
            .position(|(fragment, _)| line.contains(fragment))
            .map(|index| self.faults.remove(index).1);
        match fault {
            Some(Fault::Cut) => return None,
            Some(Fault::Busy) => return Some((503, Vec::new())),
            Some(Fault::ForgetSession) => {
                self.session_open = false;
                self.blobs.clear();
            }
            Some(Fault::ForgetChunks) => self.chunks.clear(),
            None => {}
        }
        if line.contains("/begin") {
            return Some(self.begin(body));
        }
        if !self.session_open || !line.contains(&format!("/push/s{}", self.session)) {
            return Some(refuse(ApiErrorCode::SessionGone));
        }
        Some(match line.rsplit('/').next() {
            Some("blobs") => self.propose(body),
            Some("frames") => self.frames(body),
            Some("publish") => self.publish(body),
            Some("heartbeat") => (204, Vec::new()),
            _ if line.starts_with("DELETE") => {
                self.session_open = false;
                (204, Vec::new())
            }
            _ => refuse(ApiErrorCode::BadRequest),
        })
    }

    fn begin(&mut self, body: &[u8]) -> Answer {
        let begin: Begin = serde_json::from_slice(body).expect("begin");
        let is_visible = |hash: &String| self.visible.iter().any(|path| path.starts_with(hash));
        let missing: Vec<u32> = (0..)
            .zip(&begin.paths)
            .filter(|(_, hash)| !is_visible(hash))
            .map(|(index, _)| index)
            .collect();
        let mut begun = Begun {
            missing,
            expires_in: 60,
            layers_proven: self.layers_proven,
            ..Begun::default()
        };
        let known = |key: &String| Some((key.clone(), self.layers.get(key)?.clone()));
        begun.layers = begin.layers.iter().filter_map(known).collect();
        if !begun.missing.is_empty() || begun.layers.len() < begin.layers.len() {
            let current = format!("s{}", self.session);
            if !(self.session_open && begin.session == Some(current)) {
                self.session += 1;
                self.session_open = true;
            }
            begun.session = Some(format!("s{}", self.session));
        }
        json(&begun)
    }

    fn propose(&mut self, body: &[u8]) -> Answer {
        let mut marked = HashSet::new();
        let mut answers = Vec::new();
        for proposal in decode_proposals(body).expect("proposals") {
            let ids: Vec<ChunkId> = proposal.chunks.iter().map(|(id, _)| ChunkId(*id)).collect();
            let missing = ids
                .iter()
                .map(|id| !self.chunks.contains_key(id) && marked.insert(*id))
                .collect();
            answers.push(ProposalAnswer {
                handle: self.blobs.len() as u32,
                missing,
            });
            self.blobs.push(ids);
        }
        (200, encode_answers(&answers))
    }

    fn frames(&mut self, body: &[u8]) -> Answer {
        assert!(body.len() <= firn_formats::push::FRAMES_BODY_BYTES_MAX);
        let mut decoder = Decoder::new();
        let mut accepted = FramesAccepted::default();
        for (id, range) in decode_frames(body).expect("frames") {
            let mut raw = Vec::new();
            let frame = bytes::Bytes::copy_from_slice(&body[range]);
            decoder
                .verify(ChunkId(id), frame, &mut raw)
                .expect("a sound frame");
            self.frames_received += 1;
            match self.chunks.insert(ChunkId(id), raw) {
                Some(_) => accepted.known += 1,
                None => accepted.new += 1,
            }
        }
        json(&accepted)
    }

    fn publish(&mut self, body: &[u8]) -> Answer {
        let publish: Publish = serde_json::from_slice(body).expect("publish");
        for path in &publish.paths {
            let Some(ids) = self.blobs.get(path.blob as usize) else {
                return refuse(ApiErrorCode::StaleBlob);
            };
            let mut nar = Vec::new();
            for id in ids {
                match self.chunks.get(id) {
                    Some(chunk) => nar.extend_from_slice(chunk),
                    None => return refuse(ApiErrorCode::MissingChunks),
                }
            }
            let hash = firn_formats::Sha256::of(&nar).base32();
            if hash != path.nar_hash || nar.len() as u64 != path.nar_size {
                return refuse(ApiErrorCode::HashMismatch);
            }
            let here = |reference: &String| {
                self.visible.contains(reference)
                    || publish.paths.iter().any(|other| other.path == *reference)
            };
            if !path.references.iter().all(here) {
                return refuse(ApiErrorCode::MissingReference);
            }
        }
        let paths = publish.paths.iter().map(|path| path.path.clone());
        self.visible.extend(paths);
        let published = Published {
            paths: publish.paths.len() as u32,
            ..Published::default()
        };
        self.published.push(publish);
        json(&published)
    }
}
