//! The flags that say what an image shall be.

use crate::{
    failure::{Failure, Outcome},
    units::{parse_duration, parse_pair},
};
use firn_client::{local_store::LocalStore, progress::Progress, resolve::resolve_all};
use firn_formats::{
    nix::{StorePath, store_path::STORE_DIR},
    oci::config::{Config, Empty, Healthcheck, ImageConfig},
};
use firn_image::{
    compose::{PlannedImage, plan_image_in},
    plan::{Algorithm, History},
    spec::{CREATED, ImageSpec, LAYERS_DEFAULT, LayerCompression},
};
use std::{path::PathBuf, time::Duration};

#[derive(Debug, clap::Args)]
pub(crate) struct SpecArgs {
    /// Program to run: a path, or the name of one in a PATH's bin; repeat for its arguments
    #[arg(long, value_name = "PROGRAM", allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// Default argument; repeat for more
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    cmd: Vec<String>,
    /// Environment variable
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
    env: Vec<(String, String)>,
    /// Label
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
    label: Vec<(String, String)>,
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
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Time of creation (RFC 3339)
    #[arg(long, value_name = "TIME", default_value = CREATED)]
    created: String,
    /// Architecture, as Go names it [default: this machine's]
    #[arg(long, value_name = "NAME")]
    architecture: Option<String>,
    /// Most layers
    #[arg(long, value_name = "K", default_value_t = LAYERS_DEFAULT)]
    max_layers: usize,
    /// How paths are put into layers: history, auto, popularity, dominators, one
    #[arg(long, value_name = "NAME", default_value_t = Algorithm::default())]
    algorithm: Algorithm,
    /// Compression of the layers; Docker before version 23 reads gzip only
    #[arg(long, value_enum, default_value = "zstd")]
    compression: Compression,
    /// No links at /bin, /etc, /lib and /share to what the PATHs have there
    #[arg(long)]
    no_root_links: bool,
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
}

impl From<Compression> for LayerCompression {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::Zstd => Self::Zstd,
            Compression::Gzip => Self::Gzip,
        }
    }
}

impl SpecArgs {
    /// Resolves the PATHs, and plans their closure's layers.
    pub(crate) fn plan(
        &self,
        store: &LocalStore,
        paths: &[String],
        history: History,
        progress: &dyn Progress,
    ) -> Outcome<PlannedImage> {
        if !(1..=127).contains(&self.max_layers) {
            return Err(Failure::new(format!(
                "--max-layers {} is not from 1 to 127",
                self.max_layers
            ))
            .hint("overlayfs takes 127 layers; 100 leave room to build upon the image"));
        }
        let roots = resolve_all(paths)?;
        let spec = ImageSpec {
            history,
            ..self.spec(store, &roots)?
        };
        let closure = store.closure(&roots)?;
        let planned =
            plan_image_in(store.store_dir(), closure, spec).map_err(|error| Failure::of(&error))?;
        for conflict in &planned.conflicts {
            progress.note(&format!(
                "{} is {}'s; {} has one too",
                conflict.path.display(),
                conflict.kept,
                conflict.dropped
            ));
        }
        Ok(planned)
    }

    fn spec(&self, store: &LocalStore, roots: &[StorePath]) -> Outcome<ImageSpec> {
        let (mut config, base) = self.base()?;
        self.apply(&mut config);
        if let Some(entrypoint) = &mut config.entrypoint
            && let Some(program) = entrypoint.first_mut()
        {
            *program = resolve_program(store, roots, program)?;
        }
        Ok(ImageSpec {
            config,
            architecture: self
                .architecture
                .clone()
                .or(base.architecture)
                .unwrap_or_else(|| architecture(std::env::consts::ARCH).to_owned()),
            os: base.os.unwrap_or_else(|| "linux".to_owned()),
            created: self.created.clone(),
            max_layers: self.max_layers,
            algorithm: self.algorithm,
            history: History::default(),
            compression: self.compression.into(),
            root_links: !self.no_root_links,
            users: !self.no_users,
            tmp: !self.no_tmp,
        })
    }

    /// What `--config` says.
    fn base(&self) -> Outcome<(Config, Base)> {
        let Some(path) = &self.config else {
            return Ok((Config::default(), Base::default()));
        };
        let name = path.display();
        let json = std::fs::read(path).map_err(|error| Failure::new(format!("{name}: {error}")))?;
        parse_config(&json).map_err(|error| {
            Failure::new(format!("{name}: {error}"))
                .hint("it is an OCI image config, or the object that its `config` is")
        })
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

/// A program's path in the image: as it is, or the first PATH's `bin/NAME`.
fn resolve_program(store: &LocalStore, roots: &[StorePath], program: &str) -> Outcome<String> {
    if program.contains('/') {
        return Ok(program.to_owned());
    }
    roots
        .iter()
        .find(|root| {
            let file = store.physical(root).join("bin").join(program);
            std::fs::symlink_metadata(file).is_ok()
        })
        .map(|root| format!("{STORE_DIR}/{root}/bin/{program}"))
        .ok_or_else(|| {
            Failure::new(format!("no PATH has a program bin/{program}"))
                .hint("--entrypoint also takes the full path of a program in the image")
        })
}

/// The names that OCI takes over from Go.
fn architecture(rust_name: &str) -> &str {
    match rust_name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
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

    #[test]
    fn programs_are_found_in_the_first_root_that_has_them() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = LocalStore::new(dir.path(), dir.path());
        let roots: Vec<StorePath> = ["1", "2"]
            .iter()
            .map(|digit| {
                let name = format!("{}-r", digit.repeat(32));
                StorePath::parse_base_name(&name).expect("a store path")
            })
            .collect();
        std::fs::create_dir_all(store.physical(&roots[1]).join("bin")).expect("folder");
        std::fs::write(store.physical(&roots[1]).join("bin/app"), "").expect("file");
        let found = resolve_program(&store, &roots, "app").expect("found");
        assert_eq!(found, format!("/nix/store/{}/bin/app", roots[1]));
        assert_eq!(resolve_program(&store, &roots, "/x").expect("path"), "/x");
        let failure = resolve_program(&store, &roots, "other").expect_err("absent");
        assert_eq!(failure.lines()[0], "error: no PATH has a program bin/other");
    }
}
