//! Stores without a server, as commands name them.

use crate::{
    context::Global,
    door::{NixDoor, PassedOn},
    failure::{Failure, Outcome},
};
use firn_client::{
    credentials::Credential,
    storage::{SharedStore, StorageLocation, open_storage},
    substituter::{Source, Substituter, new_key, secret_name},
};
use firn_server::loopback::Loopback;
use std::{net::SocketAddr, sync::Arc};

const VARIABLE: &str = "FIRN_STORAGE";

/// Where the stores are.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct StorageArgs {
    /// A store without a server: /FOLDER, s3://BUCKET/PREFIX or oci://REGISTRY/NAME; several are asked in order
    #[arg(long, env = VARIABLE, value_name = "LOCATION")]
    storage: Vec<String>,
    /// Credentials for the stores' registry; - reads them from standard input. All users of the machine see
    /// arguments: rather set FIRN_DEST_CREDS [default: docker's config, else GITHUB_TOKEN for ghcr.io]
    #[arg(
        long,
        value_name = "USER:TOKEN",
        env = "FIRN_DEST_CREDS",
        hide_env_values = true,
        value_parser = crate::dest_creds::parse
    )]
    dest_creds: Option<String>,
}

impl StorageArgs {
    /// The stores to work with in place of a server. A server on the command line goes before stores of the
    /// environment.
    pub(crate) fn instead_of_server(&self, global: &Global) -> Outcome<Vec<StorageLocation>> {
        let from_environment = std::env::var(VARIABLE)
            .is_ok_and(|text| matches!(self.storage.as_slice(), [only] if *only == text));
        if from_environment && global.server_is_on_command_line() {
            return Ok(Vec::new());
        }
        self.locations()
    }

    /// All stores that are named.
    pub(crate) fn locations(&self) -> Outcome<Vec<StorageLocation>> {
        let texts = self.storage.iter().flat_map(|text| words(text));
        Ok(texts
            .map(StorageLocation::parse)
            .collect::<Result<_, _>>()?)
    }

    /// Credentials that the command line or the environment gives.
    pub(crate) fn credentials(&self) -> Option<&str> {
        self.dest_creds.as_deref()
    }

    /// Opens a store; asks it nothing yet.
    pub(crate) fn open(&self, location: &StorageLocation) -> Outcome<SharedStore> {
        let given = self.dest_creds.as_deref();
        let credential = given.map(Credential::parse_basic).transpose()?;
        Ok(open_storage(location, credential)?)
    }

    /// Opens stores and looks what is in them.
    pub(crate) fn open_all(&self, locations: &[StorageLocation]) -> Outcome<Vec<SharedStore>> {
        let mut stores = Vec::with_capacity(locations.len());
        for location in locations {
            let store = self.open(location)?;
            refresh(&store)?;
            stores.push(store);
        }
        Ok(stores)
    }
}

/// The environment names several separated by spaces, which a folder's name may have, too.
fn words(text: &str) -> Vec<&str> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let location = |word: &&str| word.contains("://") || word.starts_with(['/', '.']);
    match words.iter().all(location) {
        true => words,
        false => vec![text],
    }
}

/// Takes in what is new, and says what was refused.
pub(crate) fn refresh(store: &SharedStore) -> Outcome {
    let found = store.refresh().map_err(firn_client::ClientError::from)?;
    let location = store.backend().location();
    if found.segments_refused > 0 {
        eprintln!(
            "note: {} of {} segments in {location} are not signed by a trusted key and were passed over",
            found.segments_refused, found.segments_total
        );
    }
    if found.segments_unreadable > 0 {
        eprintln!(
            "note: {} segments in {location} could not be read",
            found.segments_unreadable
        );
    }
    Ok(())
}

/// The stores as sources of one cache.
pub(crate) fn sources(global: &Global, stores: Vec<SharedStore>) -> Vec<Source> {
    stores
        .into_iter()
        .map(|store| Source {
            store,
            cache: global.cache.clone(),
        })
        .collect()
}

/// A substituter over stores that lives as long as a command.
pub(crate) struct LocalCache {
    pub(crate) substituter: Arc<Substituter>,
    pub(crate) url: String,
    /// Dropped with it.
    _server: Loopback,
}

impl LocalCache {
    /// Over the stores, and a server behind them.
    pub(crate) fn start(
        global: &Global,
        stores: Vec<SharedStore>,
        server: Option<PassedOn>,
    ) -> Outcome<Self> {
        let substituter = Arc::new(Substituter::new(
            sources(global, stores),
            new_key("firn-loopback-1")?,
        )?);
        let secret = secret_name(&new_key("door")?);
        let door = NixDoor::new(&global.cache, Arc::clone(&substituter), server).behind(&secret);
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let server =
            Loopback::start(listen, Arc::new(door)).map_err(|error| Failure::of(&error))?;
        Ok(Self {
            substituter,
            url: format!("http://{}/{secret}/{}", server.address(), global.cache),
            _server: server,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_stores_and_folders_with_spaces_are_told_apart() {
        assert_eq!(words("/a oci://r/n ./c"), ["/a", "oci://r/n", "./c"]);
        assert_eq!(words("/my folder"), ["/my folder"]);
        assert_eq!(words("s3://b/p"), ["s3://b/p"]);
    }
}
