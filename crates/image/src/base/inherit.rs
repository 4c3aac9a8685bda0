//! What an image takes over from its base's config.

use super::BaseImage;
use firn_formats::oci::config::Config;

/// The base's config with ours over it.
///
/// Variables, labels, ports and volumes are merged by name; a variable stands where the base has it. Everything
/// else of ours replaces the base's, and an entrypoint of ours drops the base's arguments, which were meant
/// for another program.
pub fn inherited(base: &BaseImage, own: &Config) -> Config {
    let mut config = base.config.config.clone();
    for entry in &own.env {
        let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
        match config.env.iter_mut().find(|old| name(old) == name(entry)) {
            Some(old) => old.clone_from(entry),
            None => config.env.push(entry.clone()),
        }
    }
    let merged = own.clone();
    config.labels.extend(merged.labels);
    config.exposed_ports.extend(merged.exposed_ports);
    config.volumes.extend(merged.volumes);
    config.extra.extend(merged.extra);
    if merged.entrypoint.is_some() {
        config.entrypoint = merged.entrypoint;
        config.cmd = None;
    }
    set(&mut config.cmd, merged.cmd);
    set(&mut config.user, merged.user);
    set(&mut config.working_dir, merged.working_dir);
    set(&mut config.stop_signal, merged.stop_signal);
    set(&mut config.args_escaped, merged.args_escaped);
    set(&mut config.healthcheck, merged.healthcheck);
    config
}

fn set<T>(slot: &mut Option<T>, value: Option<T>) {
    if value.is_some() {
        *slot = value;
    }
}
