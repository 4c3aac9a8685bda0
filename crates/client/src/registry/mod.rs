//! A client of OCI registries: blobs, manifests and tags of one repository.

mod auth;
mod blobs;
mod manifests;
mod referrers;
mod rights;
mod tags;
mod upload;

pub use blobs::RegistryBlobs;
pub use manifests::{Deletion, RawManifest};
pub use upload::{Open, Uploaded};

use crate::{
    api::Server,
    credentials::{Credential, registry_credential},
    error::{ClientError, Result},
    http::{Answer, Http, ServerUrl},
};
use firn_formats::oci::{Reference, RepositoryName};
use rights::{Access, Rights};
use std::sync::Mutex;

/// One repository of a registry. Threads share it, and the token it got.
#[derive(Debug)]
pub struct Repository {
    http: Http,
    base: ServerUrl,
    name: RepositoryName,
    credential: Option<Credential>,
    /// Repositories of the same registry whose blobs are to be mounted: a token has to allow reading them.
    mounted: Vec<RepositoryName>,
    rights: Mutex<Rights>,
}

impl Repository {
    /// The repository `name` of the registry at `base`. The credential is kept back until the registry
    /// asks for one.
    pub fn new(
        http: Http,
        base: ServerUrl,
        name: RepositoryName,
        credential: Option<Credential>,
    ) -> Self {
        Self {
            http,
            base,
            name,
            credential,
            mounted: Vec::new(),
            rights: Mutex::default(),
        }
    }

    /// An image's repository in a cache of a Firn server.
    pub fn of_server(server: &Server, cache: &str, name: &str) -> Result<Self> {
        let credential = server
            .token()
            .map(|token| Credential::Token(token.to_owned()));
        Ok(Self::eager(
            server.http().clone(),
            server.url().clone(),
            RepositoryName::parse(&format!("{cache}/{name}"))?,
            credential,
        ))
    }

    /// A repository whose registry takes the credential without being asked.
    fn eager(
        http: Http,
        base: ServerUrl,
        name: RepositoryName,
        credential: Option<Credential>,
    ) -> Self {
        let header = credential.as_ref().map(Credential::header);
        Self {
            rights: Mutex::new(Rights::given(header)),
            ..Self::new(http, base, name, credential)
        }
    }

    /// Asks for a token that may push from the first: one exchange instead of two.
    pub fn for_pushing(self) -> Self {
        crate::push::work::lock(&self.rights).expect_at_least(Access::Push);
        self
    }

    /// Asks for tokens that may read another repository too, whose blobs shall be mounted.
    pub fn mounting_from(mut self, other: &RepositoryName) -> Self {
        if *other != self.name && !self.mounted.contains(other) {
            self.mounted.push(other.clone());
        }
        self
    }

    /// The repositories that [`Repository::mounting_from`] named.
    pub fn mounted(&self) -> &[RepositoryName] {
        &self.mounted
    }

    /// Whether another repository lies in the same registry.
    pub fn is_beside(&self, other: &Self) -> bool {
        self.origin() == other.origin()
    }

    /// The registry, `HOST[:PORT]`.
    pub fn registry(&self) -> &str {
        self.base.authority()
    }

    /// The repository that a reference names; loopback registries in plain HTTP, others in TLS.
    /// Without a credential, docker's config is asked, then, for GitHub's registry, the job's environment.
    pub fn of_reference(
        http: Http,
        reference: &Reference,
        credential: Option<Credential>,
    ) -> Result<Self> {
        let registry = match reference.registry.as_deref() {
            None => {
                return Err(ClientError::Setting(format!(
                    "{reference} names no registry; write REGISTRY/NAME:TAG"
                )));
            }
            Some("docker.io" | "index.docker.io") => "registry-1.docker.io",
            Some(registry) => registry,
        };
        let name = match registry {
            "registry-1.docker.io" if !reference.name.as_str().contains('/') => {
                RepositoryName::parse(&format!("library/{}", reference.name.as_str()))?
            }
            _ => reference.name.clone(),
        };
        let credential = match credential {
            Some(credential) => Some(credential),
            None => registry_credential(registry)?,
        };
        Ok(Self::new(
            http,
            ServerUrl::parse(registry)?,
            name,
            credential,
        ))
    }

    /// Its connections.
    pub fn http(&self) -> &Http {
        &self.http
    }

    /// Its name, without the registry.
    pub fn name(&self) -> &RepositoryName {
        &self.name
    }

    fn url(&self, rest: &str) -> String {
        self.base.join(&format!("v2/{}/{rest}", self.name.as_str()))
    }

    /// `Location` or a link's target, absolute or relative to the registry's root. A registry behind a proxy
    /// may not know that it is spoken to in TLS.
    fn absolute(&self, target: &str) -> Option<String> {
        let in_plain = format!("http://{}/", self.base.authority());
        if let Some(path) = target.strip_prefix(&in_plain) {
            return Some(format!("{}/{path}", self.origin()));
        }
        if target.starts_with("http://") || target.starts_with("https://") {
            return Some(target.to_owned());
        }
        let path = target.strip_prefix('/')?;
        Some(format!("{}/{path}", self.origin()))
    }

    /// `scheme://host:port`.
    fn origin(&self) -> String {
        let scheme = match self.base.as_str().starts_with("https:") {
            true => "https",
            false => "http",
        };
        format!("{scheme}://{}", self.base.authority())
    }

    /// Whether a URL is the registry's own: only there its token is sent.
    fn is_own(&self, url: &str) -> bool {
        url.strip_prefix(&self.origin())
            .is_some_and(|rest| rest.starts_with('/'))
    }
}

fn present(answer: Answer) -> Result<bool> {
    match answer.status() {
        404 => Ok(false),
        status if status < 300 => Ok(true),
        _ => Err(answer.into_refusal()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(base: &str) -> Repository {
        Repository::new(
            Http::new(1).expect("http"),
            ServerUrl::parse(base).expect("a URL"),
            RepositoryName::parse("a/b").expect("a name"),
            None,
        )
    }

    #[test]
    fn targets_are_the_registrys_own_or_others() {
        let registry = repository("https://r.example");
        let absolute = |target| registry.absolute(target);
        let own = Some("https://r.example/v2/a?x=1".to_owned());
        for target in [
            "/v2/a?x=1",
            "https://r.example/v2/a?x=1",
            "http://r.example/v2/a?x=1",
        ] {
            assert_eq!(absolute(target), own, "{target}");
        }
        assert_eq!(absolute("v2/a"), None);
        let elsewhere = absolute("http://s.example/x").expect("a URL");
        assert_eq!(elsewhere, "http://s.example/x");
        assert!(registry.is_own("https://r.example/v2/"));
        for other in [
            &elsewhere,
            "https://r.example.evil/",
            "http://r.example/",
            "https://r.example:444/",
        ] {
            assert!(!registry.is_own(other), "{other}");
        }
    }
}
