//! The second seed's table: what it says of each job, and what was measured here.

use super::project::{Job, Saved};
use serde_json::Value;
use std::io::Write as _;

/// What the seed says of its jobs: 40 minutes of building, in a store of some 8 GB.
pub(crate) const COLD: &str = "53 min, no cache";
pub(crate) const UNCHANGED: &str = "3 min, 2 of them restoring";
pub(crate) const CHANGED: &str = "9 min, 2 of them restoring";
pub(crate) const LOCK_CHANGED: &str = "a miss; an older cache helps";
pub(crate) const IMAGE_COLD: &str = "8 min to push";
pub(crate) const IMAGE_CHANGED: &str = "1 min to push";
pub(crate) const NOTHING: &str = "–";

const HEAD: [&str; 9] = [
    "job",
    "the seed says",
    "ready",
    "built in",
    "in all",
    "fetched",
    "sent",
    "requests",
    "built",
];

/// The jobs of one life. The table is shown when the life ends, also where it ends by a failure.
pub(crate) struct Table {
    title: String,
    rows: Vec<[String; HEAD.len()]>,
}

impl Table {
    pub(crate) fn new(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            rows: Vec::new(),
        }
    }

    /// Notes a job that ended; all figures are its own summary's.
    pub(crate) fn row(&mut self, name: &str, seed: &str, job: &Job, saved: &Saved) {
        let summary = &saved.summary;
        let seconds = |names: &[&str]| names.iter().map(|name| number(summary, name)).sum::<f64>();
        self.rows.push([
            name.to_owned(),
            seed.to_owned(),
            format!("{:.2} s", seconds(&["seconds_restore"])),
            format!("{:.2} s", job.build_seconds),
            format!("{:.2} s", seconds(&["seconds_job", "seconds_save"])),
            megabytes(number(summary, "bytes_fetched")),
            megabytes(number(summary, "bytes_sent")),
            number(summary, "requests").to_string(),
            job.built.len().to_string(),
        ]);
    }

    /// Notes a step of a job by what it reported itself.
    pub(crate) fn step(&mut self, name: &str, seed: &str, report: &Value) {
        let mut row = HEAD.map(|_| String::new());
        row[0] = name.to_owned();
        row[1] = seed.to_owned();
        row[4] = format!("{:.2} s", number(report, "seconds"));
        row[6] = megabytes(number(report, "bytes_sent"));
        self.rows.push(row);
    }
}

fn number(report: &Value, name: &str) -> f64 {
    let number = report[name].as_f64();
    number.unwrap_or_else(|| panic!("no {name} in {report}"))
}

fn megabytes(bytes: f64) -> String {
    format!("{:.2} MB", bytes / 1e6)
}

impl Drop for Table {
    fn drop(&mut self) {
        let head = HEAD.map(str::to_owned);
        let lines = || std::iter::once(&head).chain(&self.rows);
        let width = |column: usize| lines().map(|row| row[column].chars().count()).max();
        let widths: [usize; HEAD.len()] = std::array::from_fn(|column| width(column).unwrap_or(0));
        let mut text = format!("\n{}\n", self.title);
        for row in lines() {
            for (cell, width) in row.iter().zip(widths) {
                let gap = width - cell.chars().count();
                text.push_str(&format!("  {cell}{}", " ".repeat(gap)));
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        // Not by `println!`, which a test that passes keeps to itself. Who reads it is not known.
        let _shown = std::io::stderr().lock().write_all(text.as_bytes());
    }
}
