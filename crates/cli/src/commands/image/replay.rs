//! `firn image replay`.

use crate::{
    context::Global,
    failure::{Failure, Outcome},
    output::{show, table},
    units::bytes,
};
use firn_image::{
    plan::Algorithm,
    replay::{Replay, Series, replay},
    spec::LAYERS_DEFAULT,
};
use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

/// Longest file that is read.
const SERIES_BYTES_MAX: u64 = 1 << 30;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Revisions of an image, oldest first, as JSON: {"revisions": [{"roots", "paths": [{"path", "narSize",
    /// "references"}]}]}
    #[arg(value_name = "SERIES.json")]
    series: PathBuf,
    /// How paths are put into layers: history, auto, popularity, dominators, one
    #[arg(long, value_name = "NAME", default_value_t = Algorithm::default())]
    algorithm: Algorithm,
    /// Most layers, all counted
    #[arg(long, value_name = "K", default_value_t = LAYERS_DEFAULT)]
    max_layers: usize,
}

pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    if args.max_layers == 0 {
        return Err(Failure::new("--max-layers 0 leaves no layer for the paths"));
    }
    let series = read(&args.series)?;
    let replay =
        replay(&series, args.algorithm, args.max_layers).map_err(|error| Failure::of(&error))?;
    show(global.json, &replay, text)
}

fn read(path: &Path) -> Outcome<Series> {
    let name = path.display();
    let failure = |error: std::io::Error| Failure::new(format!("{name}: {error}"));
    let mut json = Vec::new();
    let file = File::open(path).map_err(failure)?;
    file.take(SERIES_BYTES_MAX + 1)
        .read_to_end(&mut json)
        .map_err(failure)?;
    if json.len() as u64 > SERIES_BYTES_MAX {
        let limit = bytes(SERIES_BYTES_MAX);
        return Err(Failure::new(format!("{name} is longer than {limit}")));
    }
    Series::parse(&json).map_err(|error| {
        Failure::new(format!("{name}: {}", Failure::of(&error).message())).hint(
            "a series is {\"revisions\": [{\"roots\", \"paths\": [{\"path\", \"narSize\", \"references\"}]}]}, \
             every revision a whole closure",
        )
    })
}

fn text(replay: &Replay) -> String {
    let mut rows = vec![
        ["step", "sent again", "new", "layers sent", "layers reused"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for (number, step) in replay.steps.iter().enumerate() {
        rows.push(vec![
            (number + 1).to_string(),
            bytes(step.bytes_repushed),
            bytes(step.lower_bound),
            step.layers_sent.to_string(),
            step.layers_reused.to_string(),
        ]);
    }
    let total = &replay.total;
    let ratio = match total.lower_bound {
        0 => String::new(),
        new => format!(" ({:.3} times)", total.bytes_repushed as f64 / new as f64),
    };
    format!(
        "{}{} in at most {} layers: {} sent again, {} new{ratio}",
        table(&rows),
        replay.algorithm,
        replay.max_layers,
        bytes(total.bytes_repushed),
        bytes(total.lower_bound),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: &str = "/nix/store/00000000000000000000000000000000-app";
    const NEW: &str = "/nix/store/11111111111111111111111111111111-app";

    fn series(revisions: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), revisions).expect("written");
        file
    }

    #[test]
    fn the_document_has_what_scripts_rely_on() {
        let revision = |path: &str| {
            format!(r#"{{"roots":["{path}"],"paths":[{{"path":"{path}","narSize":1500,"x":1}}]}}"#)
        };
        let both = format!(
            r#"{{"seed":1,"revisions":[{},{},{}]}}"#,
            revision(APP),
            revision(NEW),
            revision(NEW)
        );
        let read = read(series(&both).path()).expect("a series");
        let found = replay(&read, Algorithm::Auto, 3).expect("a replay");
        assert_eq!(
            serde_json::to_value(&found).expect("JSON"),
            serde_json::json!({
                "algorithm": "auto",
                "max_layers": 3,
                "steps": [
                    {"bytes_repushed": 1500, "layers_sent": 1, "layers_reused": 0},
                    {"bytes_repushed": 0, "layers_sent": 0, "layers_reused": 1},
                ],
                "total": {"bytes_repushed": 1500, "lower_bound": 1500},
            })
        );
        assert!(text(&found).contains("1.5 kB sent again, 1.5 kB new (1.000 times)"));
    }

    #[test]
    fn what_is_no_series_is_said_in_one_line() {
        let twice = format!(
            r#"{{"revisions":[{{"paths":[{{"path":"{APP}","narSize":1}},{{"path":"{APP}","narSize":1}}]}}]}}"#
        );
        let failure = read(series(&twice).path()).expect_err("not a series");
        let line = failure.message().to_owned();
        assert!(
            line.ends_with(": revision 0: 00000000000000000000000000000000-app is there twice"),
            "{line}"
        );
        assert_eq!(failure.hints().len(), 1);
    }
}
