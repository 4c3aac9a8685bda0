//! The flags that say what an image shall be. They go over the spec, where there is one.

use crate::{
    failure::{Failure, Outcome},
    units::{parse_duration, parse_pair},
};
use firn_formats::oci::config::{Config, Empty, Healthcheck, ImageConfig};
use firn_image::{
    plan::Algorithm,
    spec::{LayerCompression, SpecDocument},
};
use std::{io::Read as _, path::PathBuf, time::Duration};

#[derive(Debug, clap::Args)]
pub(crate) struct SpecArgs {
    /// Image spec (JSON, see docs/image-spec.md); PATHs are added to its contents
    #[arg(long, value_name = "FILE")]
    pub(super) spec: Option<PathBuf>,
    /// Image to build upon: an archive, a layout, REGISTRY/NAME:TAG, or NAME:TAG in the Firn server's cache
    #[arg(long, value_name = "IMAGE")]
    pub(super) from_image: Option<String>,
    /// Credentials for the registry of --from-image [default: docker's config]
    #[arg(long, value_name = "USER:TOKEN")]
    pub(super) from_creds: Option<String>,
    /// Store path whose contents are copied to /; repeat for more
    #[arg(long, value_name = "PATH")]
    pub(super) copy_to_root: Vec<String>,
    /// Program to run: a path, or the name of one in a PATH's bin; repeat for its arguments
    #[arg(long, value_name = "PROGRAM", allow_hyphen_values = true)]
    pub(super) entrypoint: Vec<String>,
    /// Default argument; repeat for more
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    cmd: Vec<String>,
    /// Environment variable
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
    env: Vec<(String, String)>,
    /// Label
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
    label: Vec<(String, String)>,
    /// Annotation of the image's manifest
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
    annotation: Vec<(String, String)>,
    /// Exposed port, such as 8080 or 53/udp
    #[arg(long, value_name = "PORT")]
    port: Vec<String>,
    /// User (and group) to run as
    #[arg(long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    workdir: Option<String>,
    /// Volume
    #[arg(long, value_name = "DIR")]
    volume: Vec<String>,
    /// Signal that stops the container
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Shell command of the health check (Docker's)
    #[arg(long, value_name = "COMMAND", conflicts_with = "health_exec")]
    health_cmd: Option<String>,
    /// Program of the health check, run without a shell; repeat for its arguments
    #[arg(long, value_name = "PROGRAM", allow_hyphen_values = true)]
    health_exec: Vec<String>,
    /// Time between health checks
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    health_interval: Option<Duration>,
    /// Time a health check may take
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    health_timeout: Option<Duration>,
    /// Time before failures count
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    health_start_period: Option<Duration>,
    /// Time between health checks while starting
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    health_start_interval: Option<Duration>,
    /// Failures in a row that make it unhealthy
    #[arg(long, value_name = "COUNT")]
    health_retries: Option<u32>,
    /// OCI image config (JSON), whole or its `config` alone; flags go over it
    #[arg(long, value_name = "FILE", conflicts_with = "spec")]
    config: Option<PathBuf>,
    /// Time of creation: RFC 3339, or `now` [default: a second after 1970]
    #[arg(long, value_name = "TIME")]
    created: Option<String>,
    /// Architecture, as Go names it [default: this machine's]
    #[arg(long, value_name = "NAME")]
    architecture: Option<String>,
    /// Most layers, those of --from-image too [default: 100]
    #[arg(long, value_name = "K")]
    max_layers: Option<usize>,
    /// How paths are put into layers: history (the default), auto, popularity, dominators, one
    #[arg(long, value_name = "NAME")]
    algorithm: Option<Algorithm>,
    /// Compression of the layers [default: zstd]; Docker before version 23 reads gzip only
    #[arg(long, value_enum)]
    compression: Option<Compression>,
    /// Nix's database with the image's paths
    #[arg(long)]
    nix_database: bool,
    /// No links at /bin, /etc, /lib and /share to what the PATHs have there
    #[arg(long)]
    pub(super) no_root_links: bool,
    /// No /etc/passwd and /etc/group
    #[arg(long)]
    no_users: bool,
    /// No /tmp and /var/tmp
    #[arg(long)]
    no_tmp: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Compression {
    Zstd,
    Gzip,
    None,
}

impl From<Compression> for LayerCompression {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::Zstd => Self::Zstd,
            Compression::Gzip => Self::Gzip,
            Compression::None => Self::None,
        }
    }
}

/// What the spec says, with the flags over it, where they are of one kind.
pub(super) struct Said {
    pub(super) document: SpecDocument,
    pub(super) algorithm: Algorithm,
    pub(super) compression: LayerCompression,
}

impl SpecArgs {
    /// The spec with the flags over it.
    pub(super) fn said(&self) -> Outcome<Said> {
        let mut document = match &self.spec {
            Some(path) => read_spec(path)?,
            None => SpecDocument::default(),
        };
        let base = self.config_file()?;
        if let Some((config, _)) = &base {
            document.config = config.clone();
        }
        self.apply(&mut document.config);
        let of_config = base.map(|(_, base)| base).unwrap_or_default();
        document.annotations.extend(self.annotation.iter().cloned());
        document
            .copy_to_root
            .extend(self.copy_to_root.iter().cloned());
        document.include_nix_db |= self.nix_database;
        let set = |slot: &mut Option<String>, value: Option<String>| {
            if value.is_some() {
                *slot = value;
            }
        };
        set(
            &mut document.architecture,
            self.architecture.clone().or(of_config.architecture),
        );
        set(&mut document.os, of_config.os);
        set(&mut document.from_image, self.from_image.clone());
        set(&mut document.created, self.created.clone());
        document.max_layers = self.max_layers.or(document.max_layers);
        if self.no_users {
            document.fake_nss = Some(false);
        }
        if self.no_tmp {
            document.tmp = Some(false);
        }
        let named = document.algorithm.as_deref().map(str::parse).transpose();
        let named: Option<Algorithm> = named.map_err(|error| Failure::of(&error))?;
        let compression = self.compression.map(LayerCompression::from);
        Ok(Said {
            algorithm: self.algorithm.or(named).unwrap_or_default(),
            compression: compression
                .or(document.compression.map(LayerCompression::from))
                .unwrap_or_default(),
            document,
        })
    }

    /// What the spec calls the image.
    pub(super) fn reference(&self) -> Outcome<Option<String>> {
        match &self.spec {
            Some(path) => Ok(read_spec(path)?.reference()),
            None => Ok(None),
        }
    }

    /// What `--config` says.
    fn config_file(&self) -> Outcome<Option<(Config, Base)>> {
        let Some(path) = &self.config else {
            return Ok(None);
        };
        let name = path.display();
        let json = std::fs::read(path).map_err(|error| Failure::new(format!("{name}: {error}")))?;
        let read = parse_config(&json).map_err(|error| {
            Failure::new(format!("{name}: {error}"))
                .hint("it is an OCI image config, or the object that its `config` is")
        })?;
        Ok(Some(read))
    }

    fn apply(&self, config: &mut Config) {
        if !self.entrypoint.is_empty() {
            config.entrypoint = Some(self.entrypoint.clone());
            // The base's arguments were meant for another program.
            config.cmd = None;
        }
        if !self.cmd.is_empty() {
            config.cmd = Some(self.cmd.clone());
        }
        for (name, value) in &self.env {
            config
                .env
                .retain(|entry| entry.split('=').next() != Some(name));
            config.env.push(format!("{name}={value}"));
        }
        config.labels.extend(self.label.iter().cloned());
        for port in &self.port {
            let port = if port.contains('/') {
                port.clone()
            } else {
                format!("{port}/tcp")
            };
            config.exposed_ports.insert(port, Empty {});
        }
        for volume in &self.volume {
            config.volumes.insert(volume.clone(), Empty {});
        }
        let set = |field: &mut Option<String>, flag: &Option<String>| {
            if flag.is_some() {
                field.clone_from(flag);
            }
        };
        set(&mut config.user, &self.user);
        set(&mut config.working_dir, &self.workdir);
        set(&mut config.stop_signal, &self.stop_signal);
        self.apply_health(config);
    }

    fn apply_health(&self, config: &mut Config) {
        let test = match &self.health_cmd {
            Some(command) => vec!["CMD-SHELL".to_owned(), command.clone()],
            None if !self.health_exec.is_empty() => std::iter::once("CMD".to_owned())
                .chain(self.health_exec.iter().cloned())
                .collect(),
            None => Vec::new(),
        };
        if test.is_empty() && config.healthcheck.is_none() {
            return;
        }
        let health = config.healthcheck.get_or_insert_with(Healthcheck::default);
        if !test.is_empty() {
            health.test = test;
        }
        let set = |field: &mut Option<u64>, flag: Option<Duration>| {
            if let Some(time) = flag {
                *field = Some(time.as_nanos() as u64);
            }
        };
        set(&mut health.interval, self.health_interval);
        set(&mut health.timeout, self.health_timeout);
        set(&mut health.start_period, self.health_start_period);
        set(&mut health.start_interval, self.health_start_interval);
        if self.health_retries.is_some() {
            health.retries = self.health_retries;
        }
    }
}

/// What a config file says besides its `config`.
#[derive(Debug, Default)]
struct Base {
    architecture: Option<String>,
    os: Option<String>,
}

fn parse_config(json: &[u8]) -> Result<(Config, Base), serde_json::Error> {
    let value: serde_json::Value = serde_json::from_slice(json)?;
    let whole = value.get("rootfs").is_some() || value.get("config").is_some();
    if !whole {
        return Ok((serde_json::from_value(value)?, Base::default()));
    }
    if value.get("rootfs").is_some() {
        let image: ImageConfig = serde_json::from_value(value)?;
        return Ok((
            image.config,
            Base {
                architecture: Some(image.architecture),
                os: Some(image.os),
            },
        ));
    }
    let text = |name: &str| value.get(name)?.as_str().map(str::to_owned);
    let base = Base {
        architecture: text("architecture"),
        os: text("os"),
    };
    let config = value.get("config").cloned().unwrap_or_default();
    Ok((serde_json::from_value(config)?, base))
}

fn read_spec(path: &std::path::Path) -> Outcome<SpecDocument> {
    let name = path.display();
    let mut json = Vec::new();
    let limit = firn_image::spec::SPEC_BYTES_MAX as u64 + 1;
    std::fs::File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut json))
        .map_err(|error| Failure::new(format!("{name}: {error}")))?;
    SpecDocument::parse(&json).map_err(|error| {
        Failure::new(format!("{name}: {}", Failure::of(&error).message()))
            .hint("docs/image-spec.md lists the fields of a spec")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Wrapper {
        #[command(flatten)]
        spec: SpecArgs,
    }

    fn config(line: &[&str], base: &str) -> Config {
        let arguments = std::iter::once("x").chain(line.iter().copied());
        let wrapper = Wrapper::try_parse_from(arguments).expect("arguments");
        let (mut config, _) = parse_config(base.as_bytes()).expect("config");
        wrapper.spec.apply(&mut config);
        config
    }

    #[test]
    fn flags_go_over_the_config() {
        let base = r#"{"config":{"Env":["A=1","B=2"],"Cmd":["old"],"User":"me"},"os":"linux"}"#;
        let found = config(
            &[
                "--entrypoint",
                "/app",
                "--env",
                "A=3",
                "--port",
                "80",
                "--port",
                "53/udp",
            ],
            base,
        );
        assert_eq!(found.env, ["B=2", "A=3"]);
        assert_eq!(found.cmd, None);
        assert_eq!(found.user.as_deref(), Some("me"));
        let ports: Vec<&str> = found.exposed_ports.keys().map(String::as_str).collect();
        assert_eq!(ports, ["53/udp", "80/tcp"]);
        assert_eq!(
            config(&["--cmd", "--x"], base).cmd,
            Some(vec!["--x".to_owned()])
        );
    }

    #[test]
    fn health_checks_have_nanoseconds() {
        let found = config(
            &[
                "--health-cmd",
                "curl x",
                "--health-interval",
                "2s",
                "--health-retries",
                "3",
            ],
            "{}",
        );
        let health = found.healthcheck.expect("a health check");
        assert_eq!(health.test, ["CMD-SHELL", "curl x"]);
        assert_eq!(health.interval, Some(2_000_000_000));
        assert_eq!(health.retries, Some(3));
        assert_eq!(config(&["--health-retries", "3"], "{}").healthcheck, None);
    }

    #[test]
    fn configs_are_read_whole_or_in_part() {
        let inner = r#"{"Env":["A=1"],"WorkingDir":"/w"}"#;
        let whole = format!(
            r#"{{"architecture":"arm64","os":"linux","config":{inner},"rootfs":{{"type":"layers","diff_ids":[]}}}}"#
        );
        let (a, _) = parse_config(inner.as_bytes()).expect("inner");
        let (b, base) = parse_config(whole.as_bytes()).expect("whole");
        assert_eq!(a, b);
        assert_eq!(base.architecture.as_deref(), Some("arm64"));
    }
}
