//! `firn use --remove`.

use crate::{
    context::Global,
    failure::{Failure, Outcome},
    output::show,
};
use firn_client::nix_config::ConfigFiles;
use serde::Serialize;

#[derive(Serialize)]
struct Report {
    url: String,
    nix_conf: String,
    notes: Vec<String>,
}

/// Takes a cache out of nix.conf and netrc, and revokes the token that was made for it. The server need not be there.
pub(super) fn run(global: &Global, name: &str) -> Outcome {
    let url = global.server_url()?.join(name);
    let files = ConfigFiles::of_user()?;
    let there = files.substituters()?;
    let Some(known) = files.remove(&url)? else {
        let mut failure = Failure::new(format!(
            "`firn use` has not written {url} into {}",
            files.nix_conf.display()
        ));
        if !there.is_empty() {
            failure = failure.hint(format!(
                "there are {}; --server URL names their server",
                there.join(", ")
            ));
        }
        return Err(failure);
    };
    let mut notes = Vec::new();
    if let Some(id) = known.token_id {
        let revoked = global
            .connect()
            .and_then(|server| Ok(server.token_revoke(&id)?));
        notes.push(match revoked {
            Ok(()) => format!("revoked token {id}, which was made for it"),
            Err(error) => format!(
                "token {id}, which was made for it, is still good ({}); `firn token revoke {id}` ends it",
                error.message()
            ),
        });
    }
    let report = Report {
        nix_conf: files.nix_conf.display().to_string(),
        notes,
        url,
    };
    show(global.json, &report, |report| {
        let mut text = format!("{} is no longer in {}\n", report.url, report.nix_conf);
        for note in &report.notes {
            text.push_str(&format!("note: {note}\n"));
        }
        text
    })
}
