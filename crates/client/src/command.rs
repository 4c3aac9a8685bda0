//! Runs other programs.

use crate::error::{ClientError, Result};
use std::process::{Command, Output, Stdio};

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// Runs to the end and gives the standard output. The standard error goes into the failure.
pub(crate) fn run(command: &mut Command) -> Result<Vec<u8>> {
    run_with(command, Stdio::piped())
}

/// Runs to the end and gives the standard error, where warnings are, with the standard output behind it.
pub(crate) fn run_with_errors(command: &mut Command) -> Result<String> {
    let output = output(command, Stdio::piped())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = format!("{}{}", text(&output.stderr), text(&output.stdout));
    judged(command, output).map(|_| said)
}

/// As [`run`], but the standard error goes where ours goes, for programs that report progress there.
pub(crate) fn run_showing_progress(command: &mut Command) -> Result<Vec<u8>> {
    run_with(command, Stdio::inherit())
}

fn run_with(command: &mut Command, errors: Stdio) -> Result<Vec<u8>> {
    let output = output(command, errors)?;
    judged(command, output)
}

fn output(command: &mut Command, errors: Stdio) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .map_err(|source| ClientError::CommandMissing {
            command: name(command),
            source,
        })
}

/// The standard output of a program that ended well.
fn judged(command: &Command, output: Output) -> Result<Vec<u8>> {
    if output.status.success() {
        return Ok(output.stdout);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let message = text
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| line.starts_with("error:"))
        .or_else(|| text.lines().map(str::trim).rfind(|line| !line.is_empty()))
        .map_or_else(|| output.status.to_string(), str::to_owned);
    Err(ClientError::Command {
        command: name(command),
        message,
    })
}

/// Whether a program of this name is in `PATH`.
pub(crate) fn is_in_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
    })
}
