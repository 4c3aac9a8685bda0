//! Config and manifest, byte for byte.

use crate::support::{HASHES, Store};
use firn_formats::{
    oci::config::{Config, Healthcheck},
    push::{GzipDescriptor, LayerDescriptor},
};
use firn_image::{
    compose::{ComposeError, PlannedImage},
    spec::{ImageSpec, LayerCompression},
};
use std::collections::BTreeMap;

fn image(compression: LayerCompression) -> PlannedImage {
    let config = Config {
        entrypoint: Some(vec!["/bin/app".to_owned()]),
        env: vec!["A=1".to_owned()],
        healthcheck: Some(Healthcheck {
            test: vec!["CMD".to_owned(), "/bin/app".to_owned()],
            interval: Some(1_000_000_000),
            ..Healthcheck::default()
        }),
        extra: BTreeMap::from([
            ("Mine".to_owned(), serde_json::json!(true)),
            ("Shell".to_owned(), serde_json::Value::Null),
        ]),
        ..Config::default()
    };
    let spec = ImageSpec {
        config,
        compression,
        max_layers: 2,
        ..ImageSpec::default()
    };
    Store::new().image(&["app"], spec)
}

fn descriptor(digit: &str) -> LayerDescriptor {
    LayerDescriptor {
        digest: format!("sha256:{}", digit.repeat(64)),
        size: 10,
        diff_id: format!("sha256:{}", "d".repeat(64)),
        tar_size: 30,
        gzip: Some(GzipDescriptor {
            digest: format!("sha256:{}", "e".repeat(64)),
            size: 20,
        }),
    }
}

#[test]
fn the_documents_are_these_bytes() {
    let image = image(LayerCompression::Zstd);
    let built = image.assemble(&[descriptor("1"), descriptor("2")]).unwrap();
    let diff_id = format!("sha256:{}", "d".repeat(64));
    let [libc, tool, app] = HASHES;
    let config = format!(
        concat!(
            r#"{{"created":"1970-01-01T00:00:01Z","architecture":"amd64","os":"linux","#,
            r#""config":{{"Env":["A=1"],"Entrypoint":["/bin/app"],"#,
            r#""Healthcheck":{{"Test":["CMD","/bin/app"],"Interval":1000000000}},"Mine":true}},"#,
            r#""rootfs":{{"type":"layers","diff_ids":["{diff_id}","{diff_id}"]}},"#,
            r#""history":[{{"created":"1970-01-01T00:00:01Z","#,
            r#""created_by":"store paths: {app}-app {libc}-libc {tool}-tool","#,
            r#""comment":"3 store paths"}},"#,
            r#"{{"created":"1970-01-01T00:00:01Z","created_by":"root files","#,
            r#""comment":"links, users and temporary directories"}}]}}"#,
        ),
        diff_id = diff_id,
        app = app,
        libc = libc,
        tool = tool
    );
    assert_eq!(String::from_utf8(built.config).unwrap(), config);
    let manifest = format!(
        concat!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","#,
            r#""config":{{"mediaType":"application/vnd.oci.image.config.v1+json","#,
            r#""digest":"sha256:{}","size":{}}},"#,
            r#""layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+zstd","#,
            r#""digest":"sha256:{}","size":10,"annotations":{{"dev.firn.layer.key":"{}"}}}},"#,
            r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar+zstd","#,
            r#""digest":"sha256:{}","size":10,"annotations":{{"dev.firn.layer.key":"{}"}}}}]}}"#,
        ),
        built.config_digest.hex(),
        config.len(),
        "1".repeat(64),
        image.layers[0].key,
        "2".repeat(64),
        image.layers[1].key,
    );
    assert_eq!(String::from_utf8(built.manifest).unwrap(), manifest);
}

#[test]
fn gzip_is_named_when_the_spec_asks_for_it() {
    let image = image(LayerCompression::Gzip);
    let built = image.assemble(&[descriptor("1"), descriptor("2")]).unwrap();
    let manifest = String::from_utf8(built.manifest).unwrap();
    let named = format!(
        r#"tar+gzip","digest":"sha256:{}","size":20"#,
        "e".repeat(64)
    );
    assert!(manifest.contains(&named), "{manifest}");
    let without = LayerDescriptor {
        gzip: None,
        ..descriptor("1")
    };
    assert!(matches!(
        image.assemble(&[without, descriptor("2")]),
        Err(ComposeError::NoGzip { .. })
    ));
}

#[test]
fn unsound_descriptors_are_refused() {
    let image = image(LayerCompression::Zstd);
    assert!(matches!(
        image.assemble(&[descriptor("1")]),
        Err(ComposeError::LayerCount {
            planned: 2,
            given: 1
        })
    ));
    let odd = LayerDescriptor {
        digest: "sha256:short".to_owned(),
        ..descriptor("1")
    };
    assert!(matches!(
        image.assemble(&[odd, descriptor("2")]),
        Err(ComposeError::Digest(_))
    ));
}
