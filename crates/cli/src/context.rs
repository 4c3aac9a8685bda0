//! Which server, with which rights: what all commands share.

use crate::{failure::Outcome, progress::Bar};
use firn_client::{
    api::Server,
    credentials::{self, CredentialsFile},
    http::ServerUrl,
};
use std::path::{Path, PathBuf};

const SERVER_DEFAULT: &str = "http://127.0.0.1:8484";
const CACHE_DEFAULT: &str = "main";
const DATA_DEFAULT: &str = "./firn-data";
/// The title of these options in every command's help.
const EVERYWHERE: &str = "Options of every command";
const ADMIN_TOKEN_FILE: &str = "admin.token";

/// Options that every command takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Global {
    /// The Firn server [default: that of the last login, else http://127.0.0.1:8484]
    #[arg(long, global = true, env = "FIRN_SERVER", value_name = "URL", help_heading = EVERYWHERE)]
    server: Option<String>,
    /// The cache to work with
    #[arg(
        long = "cache",
        global = true,
        env = "FIRN_CACHE",
        value_name = "NAME",
        default_value = CACHE_DEFAULT,
        help_heading = EVERYWHERE
    )]
    pub(crate) cache: String,
    /// Folder of the server's data; its admin token is used when no server is named [default: ./firn-data]
    #[arg(long, global = true, env = "FIRN_DATA", value_name = "DIR", help_heading = EVERYWHERE)]
    data: Option<PathBuf>,
    /// Print one JSON document on standard output
    #[arg(long, global = true, help_heading = EVERYWHERE)]
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

    /// The server's URL: the one named, the one of the last login, this machine's.
    pub(crate) fn server_url(&self) -> Outcome<ServerUrl> {
        if let Some(text) = &self.server {
            return Ok(ServerUrl::parse(text)?);
        }
        let logged_in = match CredentialsFile::of_user() {
            Some(file) if self.admin_token().is_none() => file.default_server()?,
            _ => None,
        };
        match logged_in {
            Some(url) => Ok(url),
            None => Ok(ServerUrl::parse(SERVER_DEFAULT)?),
        }
    }

    /// The server that was named, on the command line or by the environment.
    pub(crate) fn server_given(&self) -> Option<Outcome<ServerUrl>> {
        let text = self.server.as_deref()?;
        Some(ServerUrl::parse(text).map_err(Into::into))
    }

    /// The cache, if somebody named another than the one that is everybody's.
    pub(crate) fn cache_given(&self) -> Option<String> {
        Some(self.cache.clone()).filter(|cache| cache != CACHE_DEFAULT)
    }

    /// Whether the command line names a server, and not only the environment.
    pub(crate) fn server_is_on_command_line(&self) -> bool {
        self.server.is_some() && std::env::var("FIRN_SERVER").ok() != self.server
    }

    /// The token for a server: the environment's, a kept one, or, on the server's own machine and
    /// where no server was named, the admin's.
    pub(crate) fn token(&self, server: &ServerUrl) -> Outcome<Option<String>> {
        match credentials::token_for(server)? {
            Some(token) => Ok(Some(token)),
            None => Ok(self.admin_token()),
        }
    }

    /// The admin token of the server whose folder is given, or is here while no server is named.
    fn admin_token(&self) -> Option<String> {
        if self.server.is_some() && self.data.is_none() {
            return None;
        }
        let text = std::fs::read_to_string(self.data_dir().join(ADMIN_TOKEN_FILE)).ok()?;
        Some(text.trim().to_owned()).filter(|token| !token.is_empty())
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
