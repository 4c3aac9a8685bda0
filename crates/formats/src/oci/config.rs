//! The image config: all of OCI's fields and Docker's `Healthcheck`.

use super::Digest;
use super::manifest::null_is_default;
use std::collections::BTreeMap;

/// An image config document. Unknown fields are kept in `extra`.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs)]
pub struct ImageConfig {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    pub architecture: String,
    pub os: String,
    #[serde(
        rename = "os.version",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub os_version: Option<String>,
    #[serde(
        rename = "os.features",
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: Config,
    pub rootfs: RootFs,
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub history: Vec<History>,
    #[serde(flatten)]
    pub extra: BTreeMap<String, serde_json::Value>,
}

/// What a container runs with.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct Config {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub exposed_ports: BTreeMap<String, Empty>,
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub env: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub volumes: BTreeMap<String, Empty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    #[serde(
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args_escaped: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    #[serde(flatten)]
    pub extra: BTreeMap<String, serde_json::Value>,
}

/// `{}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Empty {}

/// Docker's health check; durations in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct Healthcheck {
    #[serde(deserialize_with = "null_is_default")]
    pub test: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_period: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_interval: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
}

/// The layers' uncompressed digests, lowest first.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs)]
pub struct RootFs {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub diff_ids: Vec<Digest>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self {
            kind: "layers".to_owned(),
            diff_ids: Vec::new(),
        }
    }
}

/// One entry a layer.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct History {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub empty_layer: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A config as Docker's builder writes one, with its own fields and nulls.
    const DOCKER: &str = r#"{
        "architecture": "amd64", "os": "linux", "created": "2023-05-11T19:19:53.123456789Z",
        "docker_version": "20.10.23", "container": "7f1ab3",
        "container_config": {"Hostname": "7f1ab3", "Cmd": null},
        "config": {
            "Hostname": "", "AttachStdin": false, "Tty": false,
            "Env": ["PATH=/usr/local/bin:/usr/bin"], "Cmd": ["nginx", "-g", "daemon off;"],
            "Image": "sha256:abc", "Volumes": null, "WorkingDir": "", "Entrypoint": ["/entry.sh"],
            "OnBuild": null, "Labels": {"maintainer": "someone"}, "StopSignal": "SIGQUIT",
            "ExposedPorts": {"80/tcp": {}},
            "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 30000000000, "Retries": 3}
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"]},
        "history": [
            {"created": "2023-05-11T19:19:53Z", "created_by": "/bin/sh -c #(nop) ADD file:x in / "},
            {"created": "2023-05-11T19:19:54Z", "created_by": "CMD [\"nginx\"]", "empty_layer": true}
        ]
    }"#;

    #[test]
    fn dockers_config_is_read_and_loses_nothing_but_nulls() {
        let image: ImageConfig = serde_json::from_str(DOCKER).unwrap();
        assert_eq!(
            image.config.entrypoint.as_deref(),
            Some(&["/entry.sh".to_owned()][..])
        );
        let health = image.config.healthcheck.as_ref().unwrap();
        assert_eq!(
            (health.interval, health.retries),
            (Some(30_000_000_000), Some(3))
        );
        assert_eq!(image.history[1].empty_layer, Some(true));

        let mut expected: serde_json::Value = serde_json::from_str(DOCKER).unwrap();
        expected["config"]
            .as_object_mut()
            .unwrap()
            .remove("Volumes");
        assert_eq!(serde_json::to_value(&image).unwrap(), expected);
    }

    #[test]
    fn what_is_empty_is_written_as_an_object_or_not_at_all() {
        let mut image = ImageConfig {
            architecture: "arm64".to_owned(),
            os: "linux".to_owned(),
            ..ImageConfig::default()
        };
        assert_eq!(
            serde_json::to_string(&image).unwrap(),
            r#"{"architecture":"arm64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}"#
        );
        image
            .config
            .exposed_ports
            .insert("80/tcp".to_owned(), Empty {});
        let json = serde_json::to_string(&image).unwrap();
        assert!(json.contains(r#""ExposedPorts":{"80/tcp":{}}"#), "{json}");
    }

    #[test]
    fn null_lists_maps_and_config_are_empty() {
        let image: ImageConfig = serde_json::from_str(
            r#"{"architecture":"amd64","os":"linux","config":null,"history":null,
                "rootfs":{"type":"layers","diff_ids":null}}"#,
        )
        .unwrap();
        assert_eq!(image.config, Config::default());
        let config: Config = serde_json::from_str(
            r#"{"Env":null,"Cmd":null,"Labels":null,"ExposedPorts":null,"Healthcheck":null}"#,
        )
        .unwrap();
        assert_eq!(config, Config::default());
    }

    #[test]
    fn a_document_that_is_no_config_is_refused() {
        for text in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"architecture":"amd64","os":"linux"}"#,
        ] {
            assert!(serde_json::from_str::<ImageConfig>(text).is_err(), "{text}");
        }
    }
}
