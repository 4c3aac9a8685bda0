//! Images in a server's cache: an unchanged one costs a question, and only what is proven is believed.
#![allow(
    clippy::unwrap_used,
    reason = "a scenario that cannot be played fails its test"
)]

use crate::fixture::Fixture;
use crate::scripted_server::ScriptedServer;
use firn_client::{
    api::Server,
    http::ServerUrl,
    image::{ImageReport, push_to_firn},
    progress::Silent,
};
use firn_formats::push::LayerDescriptor;
use firn_image::{
    compose::{PlannedImage, plan_image_in},
    spec::{CopiedPath, ImageSpec, LayerCompression, Rule, Rules},
};
use firn_testkit::TestServer;

/// What a push that has nothing to send may send: questions, config and manifest.
const NEXT_TO_NOTHING: u64 = 16 << 10;

fn plan(fixture: &Fixture, spec: ImageSpec) -> PlannedImage {
    let root = fixture.store.physical(&fixture.closure.paths[0].path);
    plan_image_in(root.parent().unwrap(), fixture.closure.clone(), spec).unwrap()
}

fn server_at(url: &str, token: &str) -> Server {
    Server::new(ServerUrl::parse(url).unwrap(), Some(token.to_owned())).unwrap()
}

fn push(server: &Server, fixture: &Fixture, image: &PlannedImage) -> ImageReport {
    pushed(server, fixture, image).unwrap()
}

fn pushed(
    server: &Server,
    fixture: &Fixture,
    image: &PlannedImage,
) -> Result<ImageReport, firn_client::ClientError> {
    let store = &fixture.store;
    push_to_firn(server, "main", store, image, "app", "1", false, &Silent)
}

fn rule(path: &str, regex: Option<&str>, mode: &str) -> Rule {
    Rule {
        path: Some(path.to_owned()),
        regex: regex.map(str::to_owned),
        mode: Some(mode.to_owned()),
        uid: Some(1000),
        gid: None,
    }
}

/// Each kind of layer that has a key, with its executable files hidden by rules or not.
#[test]
fn s1_an_unchanged_image_ends_after_the_first_request() {
    let fixture = Fixture::new(5);
    let rules = |rules| Rules::new(rules, 5, 6).unwrap();
    let one = fixture.store.physical(&fixture.closure.paths[1].path);
    let one = format!("/nix/store/{}", one.file_name().unwrap().to_str().unwrap());
    let specs = [
        ("plain", ImageSpec::default()),
        (
            "gzip",
            ImageSpec {
                compression: LayerCompression::Gzip,
                ..ImageSpec::default()
            },
        ),
        (
            "an owner",
            ImageSpec {
                rules: rules(vec![rule("/etc", None, "0700")]),
                ..ImageSpec::default()
            },
        ),
        (
            "rules",
            ImageSpec {
                rules: rules(vec![
                    rule("/", Some("small$"), "0640"),
                    rule(&one, None, "0750"),
                ]),
                ..ImageSpec::default()
            },
        ),
        (
            "one layer of both",
            ImageSpec {
                max_layers: 1,
                ..ImageSpec::default()
            },
        ),
        (
            "one layer of both, with rules",
            ImageSpec {
                max_layers: 1,
                rules: rules(vec![rule("/nix/store", Some("own$"), "4711")]),
                ..ImageSpec::default()
            },
        ),
    ];
    for (what, spec) in specs {
        let server = TestServer::start();
        let server = server_at(&server.url(), server.admin_token());
        let image = plan(&fixture, spec);
        let cold = push(&server, &fixture, &image);
        assert_eq!(cold.layers_sent, cold.layers_total, "{what}: {cold:?}");
        let again = push(&server, &fixture, &image);
        assert_eq!(again.layers_sent, 0, "{what}: {again:?}");
        assert_eq!(again.digest, cold.digest, "{what}");
        assert!(again.bytes_sent < NEXT_TO_NOTHING, "{what}: {again:?}");
    }
}

/// From a tar with copies its key cannot be computed, so that layer is proposed again; its frames are there.
#[test]
fn s1_an_unchanged_image_with_copies_sends_no_frames() {
    let fixture = Fixture::new(3);
    let copied = &fixture.closure.paths[0];
    let spec = ImageSpec {
        copy_to_root: vec![CopiedPath {
            path: copied.path.clone(),
            nar_hash: copied.nar_hash,
        }],
        ..ImageSpec::default()
    };
    let running = TestServer::start();
    let server = server_at(&running.url(), running.admin_token());
    let image = plan(&fixture, spec);
    let cold = push(&server, &fixture, &image);
    let again = push(&server, &fixture, &image);
    assert_eq!(again.layers_sent, 1, "{again:?}");
    assert_eq!(again.digest, cold.digest);
    assert!(again.bytes_sent < NEXT_TO_NOTHING, "{again:?}");
}

#[test]
fn s1_a_server_that_does_not_prove_layers_is_not_believed() {
    let fixture = Fixture::new(3);
    let image = plan(&fixture, ImageSpec::default());
    let forged = LayerDescriptor {
        digest: format!("sha256:{}", "1".repeat(64)),
        size: 1,
        diff_id: format!("sha256:{}", "2".repeat(64)),
        tar_size: 1,
        gzip: None,
    };
    let keys: Vec<String> = image.layers.iter().map(|layer| layer.key.clone()).collect();
    for proven in [false, true] {
        let scripted = ScriptedServer::start(&[]);
        {
            let mut state = scripted.state();
            state.layers_proven = proven;
            let layers = keys.iter().map(|key| (key.clone(), forged.clone()));
            state.layers.extend(layers);
        }
        let server = server_at(&scripted.url, "token");
        // It has no registry, so that what follows fails.
        pushed(&server, &fixture, &image).unwrap_err();
        let state = scripted.state();
        let mut published: Vec<&String> = state
            .published
            .iter()
            .flat_map(|publish| publish.layers.iter().map(|layer| &layer.key))
            .collect();
        published.sort_unstable();
        let mut expected: Vec<&String> = keys.iter().filter(|_| !proven).collect();
        expected.sort_unstable();
        assert_eq!(published, expected);
        assert_eq!(state.frames_received > 0, !proven);
    }
}
