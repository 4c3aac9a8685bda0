//! Which server, with which rights: what all commands share.

use crate::{failure::Outcome, progress::Bar};
use firn_client::{api::Server, credentials, http::ServerUrl};
use std::path::{Path, PathBuf};

const SERVER_DEFAULT: &str = "http://127.0.0.1:8484";
const DATA_DEFAULT: &str = "./firn-data";
const ADMIN_TOKEN_FILE: &str = "admin.token";

/// Options that every command takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Global {
    /// The Firn server [default: http://127.0.0.1:8484]
    #[arg(long, global = true, env = "FIRN_SERVER", value_name = "URL")]
    server: Option<String>,
    /// The cache to work with
    #[arg(
        long = "cache",
        global = true,
        env = "FIRN_CACHE",
        value_name = "NAME",
        default_value = "main"
    )]
    pub(crate) cache: String,
    /// Folder of the server's data; its admin token is used when no server is named [default: ./firn-data]
    #[arg(long, global = true, env = "FIRN_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// Print one JSON document on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl Global {
    /// The server's folder, if it was given.
    pub(crate) fn data_given(&self) -> Option<&Path> {
        self.data.as_deref()
    }

    /// The server's folder.
    fn data_dir(&self) -> &Path {
        self.data.as_deref().unwrap_or(Path::new(DATA_DEFAULT))
    }

    /// The server's URL.
    pub(crate) fn server_url(&self) -> Outcome<ServerUrl> {
        let text = self.server.as_deref().unwrap_or(SERVER_DEFAULT);
        Ok(ServerUrl::parse(text)?)
    }

    /// The token for a server: the environment's, a kept one, or, on the server's own machine and
    /// where no server was named, the admin's.
    pub(crate) fn token(&self, server: &ServerUrl) -> Outcome<Option<String>> {
        if let Some(token) = credentials::token_for(server)? {
            return Ok(Some(token));
        }
        if self.server.is_some() && self.data.is_none() {
            return Ok(None);
        }
        let file = self.data_dir().join(ADMIN_TOKEN_FILE);
        Ok(std::fs::read_to_string(file)
            .ok()
            .map(|text| text.trim().to_owned())
            .filter(|token| !token.is_empty()))
    }

    /// The server with our rights.
    pub(crate) fn connect(&self) -> Outcome<Server> {
        let url = self.server_url()?;
        let token = self.token(&url)?;
        Ok(Server::new(url, token)?)
    }

    /// A progress bar, if anyone watches.
    pub(crate) fn progress(&self) -> Bar {
        Bar::new(self.json)
    }
}
