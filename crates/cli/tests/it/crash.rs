//! What was acknowledged survives a crash, and the database can be made anew.

use firn_testkit::rigs::Release;
use firn_testkit::rigs::closure::{Closure, hash_part};
use firn_testkit::rigs::nix::Nix;
use firn_testkit::rigs::program::{command, run};
use firn_testkit::rigs::serve::{Server, User};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// The whole closure comes out again, hashed and signed.
fn substitutes(server: &Server, key: &str, path: &str) {
    let nix = Nix::new(Release::Trixie);
    let store = nix.path("store");
    nix.realise(&store, &server.cache("main"), key, &[path])
        .ok();
    nix.verify(&store, key, path).ok();
}

/// A narinfo that is visible has its NAR and its references.
fn visible_paths_are_whole(server: &Server, closure: &Closure) {
    let key = server.public_key("main");
    for path in &closure.paths {
        let narinfo = format!("/main/{}.narinfo", hash_part(path));
        if server.status_of(&narinfo) == "200" {
            substitutes(server, &key, path);
        }
    }
}

/// Rules 1 to 4: SIGKILL at several moments of a push.
#[test]
fn a_push_is_repeated_after_the_server_was_killed() {
    let closure = Closure::first();
    for milliseconds in [15, 40, 80, 160, 320] {
        let mut server = crate::server();
        let admin = User::admin(&server);
        let mut push = admin
            .command()
            .args(["push", &closure.root])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("cannot start firn push");
        std::thread::sleep(Duration::from_millis(milliseconds));
        server.crash();
        server.restart();
        let acknowledged = push.wait().expect("cannot wait for firn push").success();
        visible_paths_are_whole(&server, &closure);
        if !acknowledged {
            admin.firn(&["push", &closure.root]).ok();
        }
        substitutes(&server, &server.public_key("main"), &closure.root);
    }
}

/// An acknowledged push is durable at once, not only after a graceful stop.
#[test]
fn what_was_acknowledged_survives_a_crash() {
    let closure = Closure::first();
    let mut server = crate::server();
    let (key, token) = (server.public_key("main"), server.token());
    User::admin(&server).firn(&["push", &closure.root]).ok();
    server.crash();
    server.restart();
    assert_eq!(server.public_key("main"), key);
    assert_eq!(server.token(), token);
    substitutes(&server, &key, &closure.root);
}

#[test]
fn the_database_is_rebuilt_from_packs_and_segments() {
    let closure = Closure::first();
    let mut server = crate::server();
    let admin = User::admin(&server);
    let key = server.public_key("main");
    admin.firn(&["push", &closure.root]).ok();
    let hello = closure.hello();
    let image = ["image", "push", "--name", "hello:1", "--entrypoint", &hello];
    let pushed = admin.json(&[&image, [closure.root.as_str()].as_slice()].concat());
    assert!(server.stop(), "SIGTERM is not a failure");

    run(command("sh")
        .current_dir(server.data())
        .args(["-ec", "test -e firn.db && rm firn.db*"]))
    .ok();
    let data = server.data().display().to_string();
    run(admin.bare_command().args(["rebuild", "--data", &data])).ok();

    server.restart();
    assert_eq!(server.public_key("main"), key);
    substitutes(&server, &key, &closure.root);
    let manifest = format!(
        "/v2/main/hello/manifests/{}",
        pushed["digest"].as_str().unwrap()
    );
    server.get(&manifest).ok();
    server.get("/v2/main/hello/manifests/1").ok();
    // And it takes more.
    let second = Closure::second();
    let more = User::admin(&server).json(&["push", &second.root]);
    assert_eq!(more["paths_pushed"], 1, "{more}");
}

#[test]
fn sigterm_drains_and_ends_well() {
    let mut server = crate::server();
    assert!(server.stop());
    server.restart();
    assert_eq!(server.status_of("/healthz"), "200");
    assert_eq!(server.status_of("/readyz"), "200");
}

/// A request by hand, up to the end of its head.
fn begin(server: &Server, line: &str, more: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let patience = Some(Duration::from_secs(30));
    stream.set_read_timeout(patience).unwrap();
    let token = server.token();
    write!(
        stream,
        "{line} HTTP/1.1\r\nHost: firn\r\nAuthorization: Bearer {token}\r\n{more}\r\n"
    )
    .unwrap();
    stream
}

/// What is under way when SIGTERM comes is done to its end, in both directions; nothing new begins.
#[test]
fn requests_under_way_end_well_and_no_new_one_begins() {
    let closure = Closure::first();
    let mut server = crate::server();
    User::admin(&server).firn(&["push", &closure.root]).ok();
    let narinfo = format!("/main/{}.narinfo", hash_part(&closure.path_of("libc6-2")));
    let narinfo = server.get(&narinfo).ok();
    let field = |name: &str| {
        let line = narinfo.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().to_owned()
    };
    let hash = field("NarHash: sha256:");
    let length: usize = field("NarSize: ").parse().unwrap();

    let log = vec![b'x'; 300_000];
    let (early, late) = log.split_at(100_000);
    let head = format!("Content-Length: {}\r\n", log.len());
    let mut upload = begin(&server, "PUT /main/log/slow.drv", &head);
    upload.write_all(early).unwrap();
    let mut download = begin(&server, &format!("GET /main/nar/{hash}.nar"), "");
    let mut first = [0; 12];
    download.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");

    let address = server.address().to_owned();
    let stopping = std::thread::spawn(move || (server.stop(), server));
    let until = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(&address).is_ok() {
        assert!(Instant::now() < until, "it takes connections still");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!stopping.is_finished(), "it did not wait");
    upload.write_all(late).unwrap();
    let mut answer = String::new();
    upload.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let mut rest = Vec::new();
    download.read_to_end(&mut rest).unwrap();
    let body = rest.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    assert_eq!(rest.len() - body.unwrap() - 4, length);

    let (ended_well, mut server) = stopping.join().unwrap();
    assert!(ended_well);
    server.restart();
    let kept = server.get("/main/log/slow.drv").ok();
    assert_eq!(kept.as_bytes(), log);
}
