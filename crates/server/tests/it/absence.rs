//! What cannot be read now is neither missing nor damaged, for clients too.

use crate::http::Client;
use crate::samples::{Upload, noise};
use firn_formats::nix::Compression;
use firn_testkit::TestServer;
use firn_testkit::damage::packs;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::fs;

fn pushed(server: &TestServer) -> (Upload, String) {
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let upload = Upload::new("away", &noise(3, 400_000), &[], Compression::Xz);
    upload.push(&admin).expect(201);
    let narinfo = admin.get(&upload.narinfo_path()).expect(200).text();
    let url = narinfo.lines().find_map(|line| line.strip_prefix("URL: "));
    let url = format!("/main/{}", url.unwrap());
    (upload, url)
}

/// Every form in which a NAR is served.
fn forms(upload: &Upload, url: &str) -> [String; 3] {
    let plain = url.replace(".nar.zst", ".nar");
    [url.to_owned(), plain, upload.nar_path()]
}

#[test]
fn d11_a_nar_that_cannot_be_read_now_is_not_said_to_be_missing() {
    let server = TestServer::start();
    let (upload, url) = pushed(&server);
    let anyone = Client::new(&server.url(), None);
    let [pack] = packs(server.data()).try_into().unwrap();
    let aside = pack.with_extension("aside");
    fs::rename(&pack, &aside).unwrap();
    // It cannot be opened, as if too many files were open.
    std::os::unix::fs::symlink(&pack, &pack).unwrap();
    for path in forms(&upload, &url) {
        let answer = anyone.get(&path).expect(503);
        assert!(answer.header("retry-after").is_some(), "{path}");
        let text = answer.text();
        assert!(
            !text.contains("packs"),
            "it says where the data lie: {text}"
        );
        anyone.head(&path).expect(503);
    }
    anyone.get(&upload.narinfo_path()).expect(200);
    fs::remove_file(&pack).unwrap();
    fs::rename(&aside, &pack).unwrap();
    for path in forms(&upload, &url) {
        anyone.get(&path).expect(200);
    }
}

#[test]
fn d11_packs_that_are_not_mounted_are_a_503_and_served_when_they_are_back() {
    let server = TestServer::start();
    let (upload, url) = pushed(&server);
    let anyone = Client::new(&server.url(), None);
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let (folder, aside) = (server.data().join("packs"), server.data().join("aside"));
    fs::rename(&folder, &aside).unwrap();
    fs::create_dir(&folder).unwrap();
    for path in forms(&upload, &url) {
        assert!(
            anyone
                .get(&path)
                .expect(503)
                .header("retry-after")
                .is_some()
        );
    }
    anyone.get(&upload.narinfo_path()).expect(200);
    // Another path: its uploader comes again, too.
    let other = Upload::new("other", &noise(4, 4_000_000), &[], Compression::Zstd);
    let answer = admin.put(&other.nar_path(), &other.file);
    assert!([201, 503].contains(&answer.status), "{}", answer.text());

    fs::remove_dir(&folder).unwrap();
    fs::rename(&aside, &folder).unwrap();
    for path in forms(&upload, &url) {
        anyone.get(&path).expect(200);
    }
    other.push(&admin).expect(201);
}

#[test]
fn d11_a_server_takes_as_many_open_files_as_it_may() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum.map(|most| most / 2);
    setrlimit(Resource::Nofile, limit).unwrap();
    let _server = TestServer::start();
    let raised = getrlimit(Resource::Nofile);
    assert_eq!(raised.current, raised.maximum);
}
