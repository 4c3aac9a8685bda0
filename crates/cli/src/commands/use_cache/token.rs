//! Which token goes into netrc. It has one for a host, and Nix needs no more than to pull.

use crate::failure::{Failure, Outcome};
use firn_client::{
    api::Server,
    nix_config::{ConfigFiles, NetrcEntry, UseCache, may_read},
};
use firn_formats::admin::{Right, TokenCreate};

/// What is to be done to netrc.
pub(super) enum Chosen {
    /// What is there will do.
    Nothing,
    Write {
        token: String,
        /// Of a token that was made for this.
        id: Option<String>,
    },
}

/// Takes the token that is there, or ours if it may pull and not do everything, or a new one. It has to open all
/// private caches of the host.
pub(super) fn choose(
    server: &Server,
    cache: &UseCache,
    files: &ConfigFiles,
    notes: &mut Vec<String>,
) -> Outcome<Chosen> {
    let urls = private_of_host(server, cache, files)?;
    let entry = files.netrc_entry(&cache.host)?;
    let there = entry.as_ref().and_then(|entry| entry.password.clone());
    if let Some(token) = &there
        && opens_all(server, &urls, token)?
        && !is_admin(server, token)?
    {
        return Ok(Chosen::Nothing);
    }
    if let Some(entry) = &entry {
        see(entry, cache, files, notes)?;
    }
    let own = server.token().map(str::to_owned);
    let admin = match &own {
        Some(token) => is_admin(server, token)?,
        None => false,
    };
    match own {
        Some(token) if !admin && opens_all(server, &urls, &token)? => {
            Ok(Chosen::Write { token, id: None })
        }
        Some(_) if admin => made(server, &urls, notes),
        _ => Err(Failure::new(format!(
            "netrc has one token for {}, and neither the one that is there nor the one given opens all of {}",
            cache.host,
            urls.join(", ")
        ))
        .hint(
            "`firn token create --cache A,B --allow pull`, given an admin's token, makes one for several caches; \
             FIRN_TOKEN=TOKEN firn use CACHE takes it; `firn use CACHE --remove` forgets a cache",
        )),
    }
}

/// The cache, and those of our block that lie on the same host and need a token too.
fn private_of_host(server: &Server, cache: &UseCache, files: &ConfigFiles) -> Outcome<Vec<String>> {
    let mut urls = vec![cache.url.clone()];
    for url in files.substituters()? {
        let parsed = firn_client::http::ServerUrl::parse(&url)?;
        if url != cache.url && parsed.host() == cache.host && !may_read(server.http(), &url, None)?
        {
            urls.push(url);
        }
    }
    Ok(urls)
}

fn opens_all(server: &Server, urls: &[String], token: &str) -> Outcome<bool> {
    for url in urls {
        if !may_read(server.http(), url, Some(token))? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_admin(server: &Server, token: &str) -> Outcome<bool> {
    let who = Server::new(server.url().clone(), Some(token.to_owned()))?.whoami()?;
    Ok(who.allow.contains(&Right::Admin))
}

/// An entry that is not ours: one for the host is not ours to replace, one for all hosts comes after ours.
fn see(
    entry: &NetrcEntry,
    cache: &UseCache,
    files: &ConfigFiles,
    notes: &mut Vec<String>,
) -> Outcome {
    let netrc = files.netrc.display();
    if entry.is_ours() {
        return Ok(());
    }
    if entry.machine.is_none() {
        notes.push(format!(
            "{netrc} has a `default` entry; the one for {} stands before it",
            cache.host
        ));
        return Ok(());
    }
    let login = entry.login.as_deref().unwrap_or_default();
    Err(Failure::new(format!(
        "{netrc} has an entry for {} already (login {login:?}), and it does not open {}",
        cache.host, cache.url
    ))
    .hint(format!(
        "nothing was changed; Nix takes the first entry of a host: replace that one by\n{}",
        cache.netrc_line("TOKEN")
    )))
}

fn made(server: &Server, urls: &[String], notes: &mut Vec<String>) -> Outcome<Chosen> {
    let base = server.url().join("");
    let names: Option<Vec<String>> = urls
        .iter()
        .map(|url| url.strip_prefix(&base).map(str::to_owned))
        .collect();
    let Some(names) = names else {
        return Err(Failure::new(format!(
            "netrc has one token for a host, and these are caches of several servers: {}",
            urls.join(", ")
        ))
        .hint("give one of the servers a host name of its own, or forget a cache: `firn use CACHE --remove`"));
    };
    let created = server.token_create(&TokenCreate {
        note: Some(format!("firn use {}", names.join(" "))),
        caches: names.clone(),
        allow: vec![Right::Pull],
        expires_in: None,
        actions: None,
    })?;
    notes.push(format!(
        "an admin's token does not go into netrc: token {} was made, which may pull from {} only",
        created.id,
        names.join(", ")
    ));
    Ok(Chosen::Write {
        token: created.token,
        id: Some(created.id),
    })
}
