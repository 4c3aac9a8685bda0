//! Pulling with the Nix that is there: it verifies, registers and locks as the store wants it.

use super::{BinaryCache, PullReport};
use crate::{
    command::{is_in_path, run, run_showing_progress},
    error::{ClientError, Result},
};
use firn_formats::nix::{PublicKey, StorePath};
use std::{io::Write as _, process::Command, time::Instant};

/// Copies the closures of `paths` into the local store. `keys` are trusted besides those Nix trusts;
/// an unprivileged user's daemon does not take them.
pub fn pull_with_nix(
    cache: &BinaryCache,
    paths: &[StorePath],
    keys: &[PublicKey],
    quiet: bool,
) -> Result<PullReport> {
    let started = Instant::now();
    // Without the option, a derivation's file stands for its outputs in Nix 2.8; with it, a path for its derivation.
    let (files, others): (Vec<&StorePath>, Vec<&StorePath>) =
        paths.iter().partition(|path| path.name().ends_with(".drv"));
    for (paths, options) in [(files, &["--derivation"][..]), (others, &[])] {
        if !paths.is_empty() {
            copy(cache, &paths, options, keys, quiet)?;
        }
    }
    Ok(PullReport {
        seconds: started.elapsed().as_secs_f64(),
        ..PullReport::default()
    })
}

/// `options` are for `nix` alone; `nix-store` takes a derivation's file for its outputs, and knows no other way.
fn copy(
    cache: &BinaryCache,
    paths: &[&StorePath],
    options: &[&str],
    keys: &[PublicKey],
    quiet: bool,
) -> Result<()> {
    // Nix removes nothing of it, and the file lives as long as the command.
    let netrc = cache.netrc_line().map(secret_file).transpose()?;
    let mut command = if is_in_path("nix") {
        let mut command = Command::new("nix");
        command.args(["--extra-experimental-features", "nix-command"]);
        command.args(["copy", "--from", cache.url()]);
        command.args(options);
        command
    } else if is_in_path("nix-store") {
        let mut command = Command::new("nix-store");
        command
            .arg("--realise")
            .args(["--option", "substituters", cache.url()]);
        command
    } else {
        return Err(ClientError::Setting(
            "there is no nix on this machine to pull into".to_owned(),
        ));
    };
    // What was absent when it was asked for last may have been pushed since.
    command.args(["--option", "narinfo-cache-negative-ttl", "0"]);
    if !keys.is_empty() {
        let texts: Vec<String> = keys.iter().map(ToString::to_string).collect();
        command.args(["--option", "extra-trusted-public-keys", &texts.join(" ")]);
    }
    if let Some(netrc) = &netrc {
        command.args(["--option", "netrc-file"]).arg(netrc.path());
    }
    command.args(paths.iter().map(|path| path.absolute()));
    if quiet {
        run(&mut command)?;
    } else {
        run_showing_progress(&mut command)?;
    }
    Ok(())
}

/// A temporary file that only this user reads.
fn secret_file(text: String) -> Result<tempfile::NamedTempFile> {
    let fault = |source| ClientError::io(std::env::temp_dir(), source);
    let mut file = tempfile::NamedTempFile::new().map_err(fault)?;
    writeln!(file, "{text}").map_err(fault)?;
    Ok(file)
}
