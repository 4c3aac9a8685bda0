use super::*;
use crate::http::{Http, ServerUrl};
use firn_formats::oci::RepositoryName;
use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::{Arc, Mutex},
};

/// A host that answers every request by its first line, and remembers what it was told.
struct Host {
    url: String,
    told: Arc<Mutex<Vec<String>>>,
}

impl Host {
    fn start(answer: impl Fn(&str) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let told = Arc::new(Mutex::new(Vec::new()));
        let said = Arc::clone(&told);
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let mut request = vec![0; 64 << 10];
                let count = client.read(&mut request).unwrap_or(0);
                let request = String::from_utf8_lossy(&request[..count]).into_owned();
                let head = answer(request.lines().next().unwrap_or_default());
                lock(&said).push(request);
                let text = format!("HTTP/1.1 {head}Connection: close\r\n\r\n");
                if let Err(error) = client.write_all(text.as_bytes()) {
                    eprintln!("the client has gone: {error}");
                }
            }
        });
        Self { url, told }
    }

    /// What it was told in confidence.
    fn secrets(&self) -> Vec<String> {
        let told = lock(&self.told);
        let secret = |text: &&String| {
            let text = text.to_ascii_lowercase();
            text.contains("authorization:") || text.contains("refresh_token")
        };
        told.iter().filter(secret).cloned().collect()
    }

    fn asked(&self) -> usize {
        lock(&self.told).len()
    }
}

const EMPTY: &str = "Content-Length: 0\r\n";

fn get(registry: &Host, credential: Credential) -> u16 {
    let repository = Repository::new(
        Http::new(1).expect("http"),
        ServerUrl::parse(&registry.url).expect("a URL"),
        RepositoryName::parse("a/b").expect("a name"),
        Some(credential),
    );
    let call = Call::get(repository.url("manifests/1"));
    let answer = repository.send(&call, Access::Pull).expect("an answer");
    answer.status()
}

fn credentials() -> [Credential; 2] {
    [
        Credential::Token("identity".to_owned()),
        Credential::Basic {
            user: "u".to_owned(),
            password: "p".to_owned(),
        },
    ]
}

/// A host to which a redirect leads asks for credentials: it is told nothing, and neither is the token endpoint
/// that it names.
#[test]
fn s2_a_redirects_target_is_told_no_credentials() {
    for scheme in ["Basic", "Bearer"] {
        for credential in credentials() {
            let endpoint = Host::start(|_| format!("200 OK\r\n{EMPTY}"));
            let realm = endpoint.url.clone();
            let thief = Host::start(move |_| {
                format!("401 No\r\nWWW-Authenticate: {scheme} realm=\"{realm}/token\"\r\n{EMPTY}")
            });
            let to = thief.url.clone();
            let registry =
                Host::start(move |_| format!("307 There\r\nLocation: {to}/x\r\n{EMPTY}"));
            assert_eq!(get(&registry, credential), 401, "{scheme}");
            assert_eq!(thief.asked(), 1);
            assert!(thief.secrets().is_empty(), "{:?}", thief.secrets());
            assert_eq!(endpoint.asked(), 0, "{:?}", endpoint.secrets());
            assert!(registry.secrets().is_empty());
        }
    }
}

/// Nor does it help that the last hop is the registry's own.
#[test]
fn s2_a_challenge_behind_a_way_through_others_is_not_answered() {
    let back = Arc::new(Mutex::new(String::new()));
    let to = Arc::clone(&back);
    let thief =
        Host::start(move |_| format!("307 There\r\nLocation: {}/chosen\r\n{EMPTY}", lock(&to)));
    let to = thief.url.clone();
    let registry = Host::start(move |line| match line.contains("/chosen") {
        true => format!("401 No\r\nWWW-Authenticate: Basic realm=\"x\"\r\n{EMPTY}"),
        false => format!("307 There\r\nLocation: {to}/x\r\n{EMPTY}"),
    });
    lock(&back).clone_from(&registry.url);
    let [_, basic] = credentials();
    assert_eq!(get(&registry, basic), 401);
    assert_eq!(registry.asked(), 2);
    assert!(registry.secrets().is_empty());
}

/// The registry's own challenge is answered, also by a token endpoint on another host, and behind a redirect
/// within the registry.
#[test]
fn s2_a_registrys_own_challenge_is_answered() {
    let endpoint = Host::start(|_| {
        "200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\nConnection: close\r\n\r\n{\"token\":\"t\"}"
            .to_owned()
    });
    let realm = endpoint.url.clone();
    let registry = Host::start(move |line| match line.contains("/manifests/") {
        true => format!("307 There\r\nLocation: /v2/a/b/elsewhere\r\n{EMPTY}"),
        false => {
            format!("401 No\r\nWWW-Authenticate: Bearer realm=\"{realm}/token\"\r\n{EMPTY}")
        }
    });
    let [_, basic] = credentials();
    get(&registry, basic);
    assert_eq!(endpoint.asked(), 1);
    assert_eq!(endpoint.secrets().len(), 1);
    assert!(registry.asked() > 2);
}
