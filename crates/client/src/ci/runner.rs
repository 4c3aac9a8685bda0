//! How a step speaks to its runner: files whose names the environment tells, one `name=value` a line, or
//! between delimiters where a value has several lines.

use super::{
    error::{CiError, Result},
    event::Environment,
};
use std::{fs::OpenOptions, io::Write as _, path::PathBuf};

/// Appends values to the file that `variable` names. False if there is no such file: no such runner.
///
/// # Errors
/// If the file cannot be written.
pub fn append(
    environment: Environment<'_>,
    variable: &str,
    values: &[(&str, &str)],
) -> Result<bool> {
    let mut text = String::new();
    for (name, value) in values {
        text.push_str(&assignment(name, value)?);
    }
    append_text(environment, variable, &text)
}

/// Appends text to the file that `variable` names.
///
/// # Errors
/// If the file cannot be written.
pub fn append_text(environment: Environment<'_>, variable: &str, text: &str) -> Result<bool> {
    let Some(path) = environment(variable).map(PathBuf::from) else {
        return Ok(false);
    };
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| CiError::io(path, source))?;
    Ok(true)
}

/// The delimiter is random: no value that a stranger chose can end its own text and set other variables.
fn assignment(name: &str, value: &str) -> Result<String> {
    if !value.contains(['\n', '\r']) {
        return Ok(format!("{name}={value}\n"));
    }
    let mut random = [0; 32];
    getrandom::fill(&mut random)
        .map_err(|error| CiError::Setting(format!("the system has no random bytes: {error}")))?;
    let delimiter = format!("firn-{}", firn_formats::Sha256(random).hex());
    Ok(format!("{name}<<{delimiter}\n{value}\n{delimiter}\n"))
}

/// A value as a POSIX shell reads it back.
pub fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

/// A line that a runner shows as a warning; elsewhere it is only a line.
pub fn warning(environment: Environment<'_>, text: &str) -> String {
    let one_line = text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    match environment("GITHUB_ACTIONS").as_deref() {
        Some("true") => format!("::warning title=Firn::{}", one_line.replace('%', "%25")),
        _ => format!("warning: {one_line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_one_line_and_of_several() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("out").display().to_string();
        let environment = |name: &str| (name == "GITHUB_OUTPUT").then(|| file.clone());
        let values = [("a", "1"), ("b", "x\ny")];
        assert!(append(&environment, "GITHUB_OUTPUT", &values).expect("written"));
        assert!(!append(&environment, "GITHUB_ENV", &values).expect("no file"));
        let text = std::fs::read_to_string(&file).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "a=1");
        let delimiter = lines[1].strip_prefix("b<<").expect("a delimiter");
        assert_eq!(lines[2..], ["x", "y", delimiter]);
        assert!(delimiter.len() > 32);
    }

    #[test]
    fn shells_read_quoted_values_back() {
        let value = "a 'b' $c\nd";
        let output = std::process::Command::new("sh")
            .args(["-c", &format!("printf %s {}", quote(value))])
            .output()
            .expect("a shell");
        assert_eq!(String::from_utf8_lossy(&output.stdout), value);
    }
}
