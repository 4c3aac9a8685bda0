//! How a command fails: one `error:` line, then `hint:` lines, on standard error.

use std::error::Error;

/// A failure as the user reads it.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hints: Vec<String>,
}

pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hints: Vec::new(),
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The error and its sources, joined by `: `.
    pub(crate) fn of(error: &dyn Error) -> Self {
        Self::new(chain(error))
    }

    /// What went wrong, in one line.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it.
    pub(crate) fn hints(&self) -> &[String] {
        &self.hints
    }

    pub(crate) fn print(&self) {
        eprintln!("error: {}", self.message);
        for hint in &self.hints {
            eprintln!("hint: {hint}");
        }
    }

    #[cfg(test)]
    pub(crate) fn lines(&self) -> Vec<String> {
        std::iter::once(format!("error: {}", self.message))
            .chain(self.hints.iter().map(|hint| format!("hint: {hint}")))
            .collect()
    }
}

/// Joins an error and its sources; a source that its error repeats is left out.
fn chain(error: &dyn Error) -> String {
    let mut text = one_line(error);
    let mut source = error.source();
    while let Some(error) = source {
        let next = one_line(error);
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}

fn one_line(error: &dyn Error) -> String {
    let text = error.to_string();
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::of(&error)
    }
}
