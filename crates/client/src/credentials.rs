//! Whose rights a request has: Firn's own file, docker's config, the environment.

use crate::{
    error::{ClientError, Result},
    http::ServerUrl,
};
use base64::Engine as _;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// A bearer token, or a name with a password. Never shown.
#[derive(Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Credential {
    Token(String),
    Basic { user: String, password: String },
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "Token(…)",
            Self::Basic { .. } => "Basic(…)",
        })
    }
}

impl Credential {
    /// Reads `USER:PASSWORD`.
    pub fn parse_basic(text: &str) -> Result<Self> {
        match text.split_once(':') {
            Some((user, password)) if !user.is_empty() => Ok(Self::Basic {
                user: user.to_owned(),
                password: password.to_owned(),
            }),
            _ => Err(ClientError::Setting(
                "credentials have the form USER:PASSWORD".to_owned(),
            )),
        }
    }

    /// The value of an `Authorization` header.
    pub fn header(&self) -> String {
        match self {
            Self::Token(token) => format!("Bearer {token}"),
            Self::Basic { user, password } => format!("Basic {}", encode_basic(user, password)),
        }
    }

    /// The value of a Basic `Authorization` header; a token goes as the password.
    pub fn basic_header(&self) -> String {
        match self {
            Self::Token(token) => format!("Basic {}", encode_basic("firn", token)),
            Self::Basic { .. } => self.header(),
        }
    }
}

fn encode_basic(user: &str, password: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))
}

/// `$XDG_CONFIG_HOME/firn/credentials.json`: tokens by server.
#[derive(Debug, Clone)]
pub struct CredentialsFile(PathBuf);

#[derive(Default, Serialize, Deserialize)]
struct Content {
    /// The server of the last login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    default: Option<String>,
    #[serde(default)]
    servers: BTreeMap<String, Server>,
}

#[derive(Serialize, Deserialize)]
struct Server {
    token: String,
}

impl CredentialsFile {
    /// The user's file, if the environment tells of a home.
    pub fn of_user() -> Option<Self> {
        Some(Self(config_home()?.join("firn/credentials.json")))
    }

    /// A file elsewhere.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The token stored for a server.
    pub fn token(&self, server: &ServerUrl) -> Result<Option<String>> {
        let content = self.read()?;
        Ok(content
            .servers
            .get(server.as_str())
            .map(|server| server.token.clone()))
    }

    /// The server of the last login.
    pub fn default_server(&self) -> Result<Option<ServerUrl>> {
        self.read()?
            .default
            .as_deref()
            .map(ServerUrl::parse)
            .transpose()
    }

    /// Stores a server's token, and makes it the default server.
    pub fn store(&self, server: &ServerUrl, token: &str) -> Result<()> {
        let mut content = self.read()?;
        content.servers.insert(
            server.as_str().to_owned(),
            Server {
                token: token.to_owned(),
            },
        );
        content.default = Some(server.as_str().to_owned());
        let mut json = serde_json::to_vec_pretty(&content)
            .map_err(|source| ClientError::json("credentials", source))?;
        json.push(b'\n');
        crate::files::write_secret(&self.0, &json)
    }

    /// Tokens that everybody may read are nobody's secret any more.
    fn refuse_if_open(&self) -> Result<()> {
        let Ok(metadata) = std::fs::metadata(&self.0) else {
            return Ok(());
        };
        match metadata.permissions().mode() & 0o007 {
            0 => Ok(()),
            _ => Err(ClientError::Setting(format!(
                "everybody may open {}; `chmod 600` it, and revoke its tokens if somebody did",
                self.0.display()
            ))),
        }
    }

    fn read(&self) -> Result<Content> {
        self.refuse_if_open()?;
        match std::fs::read(&self.0) {
            Ok(json) => serde_json::from_slice(&json)
                .map_err(|source| ClientError::json(self.0.display().to_string(), source)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Content::default()),
            Err(source) => Err(ClientError::io(&self.0, source)),
        }
    }
}

/// `$XDG_CONFIG_HOME` or `~/.config`.
pub(crate) fn config_home() -> Option<PathBuf> {
    home_dir("XDG_CONFIG_HOME", ".config")
}

/// `$XDG_CACHE_HOME` or `~/.cache`.
pub(crate) fn cache_home() -> Option<PathBuf> {
    home_dir("XDG_CACHE_HOME", ".cache")
}

/// `$XDG_STATE_HOME` or `~/.local/state`.
pub(crate) fn state_home() -> Option<PathBuf> {
    home_dir("XDG_STATE_HOME", ".local/state")
}

fn home_dir(variable: &str, below_home: &str) -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    set(variable)
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(set("HOME")?).join(below_home)))
}

/// The token for a server: `FIRN_TOKEN`, then the user's file.
pub fn token_for(server: &ServerUrl) -> Result<Option<String>> {
    if let Ok(token) = std::env::var("FIRN_TOKEN")
        && !token.trim().is_empty()
    {
        return Ok(Some(token.trim().to_owned()));
    }
    match CredentialsFile::of_user() {
        Some(file) => file.token(server),
        None => Ok(None),
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DockerConfig {
    auths: BTreeMap<String, DockerAuth>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DockerAuth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// GitHub's registry.
const GITHUB_REGISTRY: &str = "ghcr.io";

/// Who we are to a registry when nobody has said so: docker's config, then, for GitHub's registry, the token
/// of the Actions job (`GITHUB_ACTOR` and `GITHUB_TOKEN`).
pub fn registry_credential(registry: &str) -> Result<Option<Credential>> {
    match docker_credential(registry)? {
        Some(credential) => Ok(Some(credential)),
        None => Ok(github_credential(registry, &|name| {
            std::env::var(name).ok()
        })),
    }
}

fn github_credential(
    registry: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Option<Credential> {
    let set = |name| environment(name).filter(|value| !value.trim().is_empty());
    if registry != GITHUB_REGISTRY {
        return None;
    }
    Some(Credential::Basic {
        password: set("GITHUB_TOKEN")?.trim().to_owned(),
        // It takes any name beside a token.
        user: set("GITHUB_ACTOR").unwrap_or_else(|| "token".to_owned()),
    })
}

/// What docker's or podman's config says of a registry (`host[:port]`), credential helpers asked too.
pub fn docker_credential(registry: &str) -> Result<Option<Credential>> {
    for path in docker_config_paths() {
        let Ok(json) = std::fs::read(&path) else {
            continue;
        };
        let config: DockerConfig = serde_json::from_slice(&json)
            .map_err(|source| ClientError::json(path.display().to_string(), source))?;
        if let Some(credential) = from_docker_config(&config, registry) {
            return Ok(Some(credential));
        }
    }
    Ok(None)
}

fn docker_config_paths() -> Vec<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let mut paths = Vec::new();
    paths.extend(set("REGISTRY_AUTH_FILE").map(PathBuf::from));
    paths.extend(set("DOCKER_CONFIG").map(|dir| PathBuf::from(dir).join("config.json")));
    paths.extend(set("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("containers/auth.json")));
    paths.extend(set("HOME").map(|dir| PathBuf::from(dir).join(".docker/config.json")));
    paths
}

fn from_docker_config(config: &DockerConfig, registry: &str) -> Option<Credential> {
    let names = docker_names(registry);
    let helper = names
        .iter()
        .find_map(|name| config.cred_helpers.get(name))
        .or(config.creds_store.as_ref());
    if let Some(credential) = helper.and_then(|helper| ask_helper(helper, names.first()?)) {
        return Some(credential);
    }
    let auth = names.iter().find_map(|name| config.auths.get(name))?;
    if let Some(token) = auth
        .identitytoken
        .as_ref()
        .filter(|token| !token.is_empty())
    {
        return Some(Credential::Token(token.clone()));
    }
    if let (Some(user), Some(password)) = (&auth.username, &auth.password) {
        return Some(Credential::Basic {
            user: user.clone(),
            password: password.clone(),
        });
    }
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(auth.auth.as_ref()?.trim())
        .ok()?;
    Credential::parse_basic(&String::from_utf8(decoded).ok()?).ok()
}

/// The keys under which docker and podman store one registry.
fn docker_names(registry: &str) -> Vec<String> {
    let mut names = vec![
        registry.to_owned(),
        format!("https://{registry}"),
        format!("http://{registry}"),
        format!("https://{registry}/v1/"),
        format!("https://{registry}/v2/"),
    ];
    if registry == "registry-1.docker.io" || registry == "docker.io" {
        names.insert(0, "https://index.docker.io/v1/".to_owned());
    }
    names
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

/// `docker-credential-NAME get`: the registry on standard input, JSON on standard output.
fn ask_helper(helper: &str, registry: &str) -> Option<Credential> {
    use std::{
        io::Write as _,
        process::{Command, Stdio},
    };
    let mut child = Command::new(format!("docker-credential-{helper}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    child.stdin.take()?.write_all(registry.as_bytes()).ok()?;
    let output = child.wait_with_output().ok()?;
    let answer: HelperAnswer = serde_json::from_slice(&output.stdout).ok()?;
    Some(match answer.username.as_str() {
        "<token>" => Credential::Token(answer.secret),
        _ => Credential::Basic {
            user: answer.username,
            password: answer.secret,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_kept_by_server_in_a_file_only_the_user_reads() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = CredentialsFile::at(dir.path().join("a/credentials.json"));
        let one = ServerUrl::parse("http://127.0.0.1:1").expect("url");
        let two = ServerUrl::parse("https://firn.example").expect("url");
        assert_eq!(file.token(&one).expect("absent file"), None);
        file.store(&one, "first").expect("store");
        file.store(&two, "second").expect("store");
        assert_eq!(file.default_server().expect("read"), Some(two.clone()));
        file.store(&one, "third").expect("replace");
        assert_eq!(file.token(&one).expect("read").as_deref(), Some("third"));
        assert_eq!(file.token(&two).expect("read").as_deref(), Some("second"));
        let mode = std::fs::metadata(file.path()).expect("file").permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(file.path(), open).expect("chmod");
        let refused = file.token(&one).expect_err("everybody may read it");
        assert!(refused.to_string().contains("chmod 600"));
    }

    #[test]
    fn docker_config_is_understood() {
        let config: DockerConfig = serde_json::from_str(
            r#"{"auths":{"ghcr.io":{"auth":"YWxpY2U6cDp3"},
                "https://index.docker.io/v1/":{"username":"bob","password":"x"},
                "q.example":{"identitytoken":"t"}}}"#,
        )
        .expect("json");
        assert_eq!(
            from_docker_config(&config, "ghcr.io").map(|found| found.header()),
            Some("Basic YWxpY2U6cDp3".to_owned())
        );
        assert!(from_docker_config(&config, "registry-1.docker.io").is_some());
        assert_eq!(
            from_docker_config(&config, "q.example"),
            Some(Credential::Token("t".to_owned()))
        );
        assert_eq!(from_docker_config(&config, "other"), None);
    }

    #[test]
    fn the_token_of_a_job_goes_to_github_alone() {
        let job = |name: &str| match name {
            "GITHUB_ACTOR" => Some("octo".to_owned()),
            "GITHUB_TOKEN" => Some("ghs_1\n".to_owned()),
            _ => None,
        };
        let expected = Credential::Basic {
            user: "octo".to_owned(),
            password: "ghs_1".to_owned(),
        };
        assert_eq!(github_credential("ghcr.io", &job), Some(expected));
        for other in ["docker.io", "ghcr.io.example", "127.0.0.1:5000"] {
            assert_eq!(github_credential(other, &job), None, "{other}");
        }
        assert_eq!(github_credential("ghcr.io", &|_| None), None);
    }

    #[test]
    fn secrets_are_not_shown() {
        let secret = Credential::Token("hunter2".to_owned());
        assert!(!format!("{secret:?}").contains("hunter2"));
    }
}
