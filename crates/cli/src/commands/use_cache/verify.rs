//! Whether Nix uses a cache, as Nix says.

use crate::failure::{Failure, Outcome};
use firn_client::nix_config::{ConfigFiles, NixSettings, UseCache, daemon_listens, open_cache};

/// Fails if Nix does not use what was written, and says why.
pub(super) fn verify(
    cache: &UseCache,
    files: &ConfigFiles,
    changed: bool,
    notes: &mut Vec<String>,
) -> Outcome {
    let settings = NixSettings::of_user()?;
    let unused = |why: String| {
        Failure::new(format!(
            "{} is in {}, but Nix does not use it: {why}",
            cache.url,
            files.nix_conf.display()
        ))
    };
    if !settings.has_substituter(&cache.url) {
        return Err(unused(format!(
            "its substituters are {:?}",
            settings.substituters.join(" ")
        ))
        .hint("a line after the block, another configuration file or NIX_CONFIG sets `substituters` anew; take it away or add the cache there"));
    }
    if !settings.trusts(&cache.public_keys) {
        return Err(unused("it does not trust the cache's key".to_owned()).hint(
            "a line after the block, another configuration file or NIX_CONFIG sets `trusted-public-keys` anew; take it \
             away or add the key there",
        ));
    }
    if let Some(name) = settings.name_of_two(&cache.public_keys) {
        return Err(unused(format!(
            "another key has the name {name}, too, and Nix keeps one key for a name"
        ))
        .hint(
            "`firn cache key rotate CACHE` gives the cache a key with a name of its own; then `firn use CACHE` again",
        ));
    }
    if cache.private && settings.netrc_file != files.netrc {
        return Err(unused(format!(
            "it reads {} and not {}, where the token is",
            settings.netrc_file.display(),
            files.netrc.display()
        ))
        .hint("another line sets `netrc-file`; take it away"));
    }
    if let Err(error) = open_cache(&cache.url) {
        return Err(unused(Failure::of(&error).message().to_owned()));
    }
    let system = settings.netrc_file_default.with_file_name("nix.conf");
    if changed && files.nix_conf == system && daemon_listens() {
        notes.push(
            "the Nix daemon reads its configuration when it starts: `systemctl restart nix-daemon`, or other users' \
             commands do not use the cache"
                .to_owned(),
        );
    }
    if cache.private
        && files.netrc != settings.netrc_file_default
        && settings.netrc_file_default.exists()
    {
        notes.push(format!(
            "Nix reads {} in place of {}",
            files.netrc.display(),
            settings.netrc_file_default.display()
        ));
    }
    Ok(())
}
