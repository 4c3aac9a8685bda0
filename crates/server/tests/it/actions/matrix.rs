//! Every token × every call × every scope, in one table.

use super::{Job, SERVICE, VERSION};
use crate::http::Client;
use firn_formats::actions::Scope;
use firn_formats::admin::Right;
use firn_testkit::TestServer;
use serde_json::json;

/// What a token may do where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct May {
    /// The entries that it finds, of `main`, `feature` and `pull`, one in each scope.
    read: [bool; 3],
    write: bool,
    /// The status of everything if it is no token for this door.
    refused: Option<u16>,
}

const NOBODY: May = May {
    read: [false; 3],
    write: false,
    refused: Some(401),
};
const NO_ACTIONS: May = May {
    refused: Some(403),
    ..NOBODY
};

const SCOPES: [(&str, &str); 3] = [
    ("main", "refs/heads/main"),
    ("feature", "refs/heads/feature"),
    ("pull", "refs/pull/1/merge"),
];

fn may(read: [bool; 3], write: bool) -> May {
    May {
        read,
        write,
        refused: None,
    }
}

fn tokens(server: &TestServer) -> Vec<(&'static str, Option<String>, May)> {
    let of =
        |repository: &str, scopes: &[Scope]| Some(server.actions_token("main", repository, scopes));
    let [main, feature, pull] = SCOPES.map(|(_, scope)| scope);
    let write_only =
        serde_json::from_str::<Vec<Scope>>(&format!(r#"[{{"Scope":"{main}","Permission":2}}]"#));
    let plain = |allow: &[Right]| Some(server.token(&["*"], allow));
    vec![
        ("none", None, NOBODY),
        ("nonsense", Some("a.b.c".to_owned()), NOBODY),
        ("pull", plain(&[Right::Pull]), NO_ACTIONS),
        ("push", plain(&[Right::Push]), NO_ACTIONS),
        ("admin", Some(server.admin_token().to_owned()), NO_ACTIONS),
        (
            "main rw",
            of("acme/web", &[Scope::write(main)]),
            may([true, false, false], true),
        ),
        (
            "main r",
            of("acme/web", &[Scope::read(main)]),
            may([true, false, false], false),
        ),
        (
            "main w",
            of("acme/web", &write_only.unwrap()),
            may([false; 3], true),
        ),
        (
            "feature rw, main r",
            of("acme/web", &[Scope::write(feature), Scope::read(main)]),
            may([true, true, false], true),
        ),
        (
            "pull rw, feature r, main r",
            of(
                "acme/web",
                &[Scope::write(pull), Scope::read(feature), Scope::read(main)],
            ),
            may([true; 3], true),
        ),
        (
            "another repository",
            of("acme/web2", &[Scope::write(main), Scope::read(feature)]),
            may([false; 3], true),
        ),
        (
            "another cache",
            Some(server.actions_token("other", "acme/web", &[Scope::write(main)])),
            may([false; 3], true),
        ),
    ]
}

fn reads(job: &Job, name: &str, may: May) {
    for (place, (key, _)) in SCOPES.iter().enumerate() {
        let query = json!({"key": key, "version": VERSION});
        let v2 = job.twirp("GetCacheEntryDownloadURL", &query);
        let v1 = job.http.get(&format!(
            "/_apis/artifactcache/cache?keys={key}&version={VERSION}"
        ));
        let list = job
            .http
            .get(&format!("/_apis/artifactcache/caches?key={key}"));
        if let Some(status) = may.refused {
            assert_eq!(
                (v2.status, v1.status, list.status),
                (status, status, status),
                "{name}"
            );
            continue;
        }
        if name == "main w" {
            assert_eq!(
                (v2.status, v1.status, list.status),
                (403, 403, 403),
                "{name}"
            );
            assert!(
                v2.json()["msg"]
                    .as_str()
                    .unwrap()
                    .starts_with("cache read denied:")
            );
            assert!(
                v1.json()["message"]
                    .as_str()
                    .unwrap()
                    .starts_with("cache read denied:")
            );
            continue;
        }
        let expected = may.read[place];
        assert_eq!(v2.expect(200).json()["ok"], expected, "{name} {key}");
        assert_eq!(v1.status, if expected { 200 } else { 204 }, "{name} {key}");
        let listed = list.expect(200).json()["totalCount"] != 0;
        assert_eq!(listed, expected, "{name} {key}");
    }
}

fn writes(job: &Job, name: &str, may: May) {
    let name = &*name.replace(',', " and");
    let create = job.create(&format!("new of {name}"));
    let v1 = json!({"key": format!("old of {name}"), "version": VERSION});
    let reserve = job.http.post_json("/_apis/artifactcache/caches", &v1);
    let finalize = job.finalize("absent", 1);
    let patch = job.http.send(
        "PATCH",
        "/_apis/artifactcache/caches/1",
        &[("content-range", "bytes 0-0/*")],
        b"x",
    );
    let commit = job
        .http
        .post_json("/_apis/artifactcache/caches/1", &json!({"size": 1}));
    let statuses = [
        create.status,
        reserve.status,
        finalize.status,
        patch.status,
        commit.status,
    ];
    match (may.refused, may.write) {
        (Some(status), _) => assert_eq!(statuses, [status; 5], "{name}"),
        (None, true) => {
            // Number 1 is the upload of the first entry, and over.
            assert_eq!(statuses, [200, 201, 404, 404, 404], "{name}");
            assert_eq!(create.json()["ok"], true, "{name}");
        }
        (None, false) => {
            assert_eq!(statuses, [200, 403, 200, 403, 403], "{name}");
            for answer in [&create, &finalize] {
                let message = answer.json()["message"].as_str().unwrap().to_owned();
                assert!(
                    message.starts_with("cache write denied:"),
                    "{name}: {message}"
                );
            }
        }
    }
}

#[test]
fn every_token_every_call_every_scope() {
    let server = TestServer::start();
    let admin = Client::new(&server.url(), Some(server.admin_token()));
    let other = json!({"name": "other", "public": true});
    admin.post_json("/api/v1/caches", &other).expect(200);
    for (key, scope) in SCOPES {
        Job::new(&server, "acme/web", &[Scope::write(scope)]).save(key, key.as_bytes());
    }
    for (name, token, may) in tokens(&server) {
        let job = Job::with_token(&server, token.as_deref());
        reads(&job, name, may);
        writes(&job, name, may);
        // A cache in the path that is not the token's: refused, whether there is one or not.
        let own = if name == "another cache" {
            "other"
        } else {
            "main"
        };
        for cache in ["main", "other", "nowhere", "a/b"] {
            let path = format!("/{cache}{SERVICE}GetCacheEntryDownloadURL");
            let query = json!({"key": "main", "version": VERSION});
            let status = job.http.post_json(&path, &query).status;
            let readable = if name == "main w" { 403 } else { 200 };
            let expected = match may.refused {
                Some(status) => status,
                None if cache == own => readable,
                None => 403,
            };
            assert_eq!(status, expected, "{name} in {cache}");
        }
    }
    // None of them changed what is there.
    for (key, scope) in SCOPES {
        let reader = Job::new(&server, "acme/web", &[Scope::read(scope)]);
        assert_eq!(reader.restore(key, &[]).unwrap().1, key.as_bytes());
    }
}

/// An upload is its repository's and its scope's: its number helps nobody else.
#[test]
fn uploads_of_others_are_not_there() {
    let server = TestServer::start();
    let main = Job::on_main(&server);
    let body = json!({"key": "k", "version": VERSION});
    let path = "/_apis/artifactcache/caches";
    let id = main.http.post_json(path, &body).expect(201).json()["cacheId"].clone();
    let pull = [
        Scope::write("refs/pull/9/merge"),
        Scope::read("refs/heads/main"),
    ];
    let strangers = [
        Job::new(&server, "acme/other", &[Scope::write("refs/heads/main")]),
        Job::new(&server, "acme/web", &pull),
    ];
    for stranger in &strangers {
        let range = [("content-range", "bytes 0-0/*")];
        let upload = format!("{path}/{id}");
        stranger
            .http
            .send("PATCH", &upload, &range, b"x")
            .expect(404);
        stranger
            .http
            .post_json(&upload, &json!({"size": 0}))
            .expect(404);
    }
    let range = [("content-range", "bytes 0-0/*")];
    let upload = format!("{path}/{id}");
    main.http.send("PATCH", &upload, &range, b"x").expect(204);
    main.http
        .post_json(&upload, &json!({"size": 1}))
        .expect(204);
    for stranger in &strangers[..1] {
        assert_eq!(stranger.matched("k", &[]), None);
    }
}
