//! A client of OCI registries: what pushing an image needs.

mod auth;
mod upload;

use crate::{
    api::Server,
    credentials::{Credential, docker_credential},
    error::{ClientError, Result},
    http::{Answer, Call, Http, ServerUrl},
};
use firn_formats::oci::{Digest, Reference, RepositoryName, media_type};
use std::sync::Mutex;
use ureq::http::Method;

/// Largest manifest or config read, in bytes.
const DOCUMENT_BYTES_MAX: usize = 32 << 20;

/// One repository of a registry.
#[derive(Debug)]
pub struct Repository {
    http: Http,
    base: ServerUrl,
    name: RepositoryName,
    credential: Option<Credential>,
    /// The `Authorization` header that works; found out by the first refusal.
    authorization: Mutex<Option<String>>,
}

/// A manifest as a registry gave it.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct RawManifest {
    pub media_type: String,
    pub bytes: Vec<u8>,
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
            authorization: Mutex::default(),
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
            authorization: Mutex::new(header),
            ..Self::new(http, base, name, credential)
        }
    }

    /// The repository that a reference names; loopback registries in plain HTTP, others in TLS.
    /// Without a credential, docker's config is asked.
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
            None => docker_credential(registry)?,
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

    fn url(&self, rest: &str) -> String {
        self.base.join(&format!("v2/{}/{rest}", self.name.as_str()))
    }

    /// Sends, answering one challenge. Refusals are answers.
    fn send(&self, call: &Call<'_>) -> Result<Answer> {
        let header = self.authorization();
        let answer = self
            .http
            .send(&call.clone().authorization(header.as_deref()))?;
        if answer.status() != 401 || !self.answer_challenge(&answer, header.as_deref())? {
            return Ok(answer);
        }
        let header = self.authorization();
        self.http
            .send(&call.clone().authorization(header.as_deref()))
    }

    fn authorization(&self) -> Option<String> {
        crate::push::work::lock(&self.authorization).clone()
    }

    /// Gets what a challenge asks for; false if there is nothing new to try.
    fn answer_challenge(&self, answer: &Answer, tried: Option<&str>) -> Result<bool> {
        let challenge = answer
            .header("WWW-Authenticate")
            .and_then(auth::Challenge::parse);
        let header = match challenge {
            Some(auth::Challenge::Bearer(bearer)) => {
                let scope = format!("repository:{}:pull,push", self.name.as_str());
                Some(bearer.token(&self.http, &scope, self.credential.as_ref())?)
            }
            Some(auth::Challenge::Basic) => self.credential.as_ref().map(Credential::basic_header),
            None => None,
        };
        let Some(header) = header.filter(|header| Some(header.as_str()) != tried) else {
            return Ok(false);
        };
        *crate::push::work::lock(&self.authorization) = Some(header);
        Ok(true)
    }

    /// Whether the repository has a blob.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool> {
        let answer = self.send(&Call::new(
            Method::HEAD,
            self.url(&format!("blobs/{digest}")),
        ))?;
        present(answer)
    }

    /// A small blob, checked against its digest.
    pub fn blob(&self, digest: &Digest) -> Result<Vec<u8>> {
        let answer = self
            .send(&Call::get(self.url(&format!("blobs/{digest}"))))?
            .accept()?;
        let bytes = bounded(answer)?;
        if !digest.matches(&bytes) {
            return Err(ClientError::HashMismatch {
                what: format!("blob {digest}"),
            });
        }
        Ok(bytes)
    }

    /// The digest a tag points at, if the registry says.
    pub fn manifest_digest(&self, reference: &str) -> Result<Option<String>> {
        let call = Call::new(Method::HEAD, self.url(&format!("manifests/{reference}")))
            .header("Accept", ACCEPT);
        let answer = self.send(&call)?;
        let digest = answer.header("Docker-Content-Digest").map(str::to_owned);
        Ok(present(answer)?.then_some(digest).flatten())
    }

    /// A manifest, if there is one.
    pub fn manifest(&self, reference: &str) -> Result<Option<RawManifest>> {
        let call = Call::get(self.url(&format!("manifests/{reference}"))).header("Accept", ACCEPT);
        let answer = self.send(&call)?;
        if answer.status() == 404 {
            return Ok(None);
        }
        let answer = answer.accept()?;
        let media_type = answer
            .header("Content-Type")
            .unwrap_or(media_type::OCI_MANIFEST)
            .to_owned();
        Ok(Some(RawManifest {
            media_type,
            bytes: bounded(answer)?,
        }))
    }

    /// Puts a manifest under a tag or digest.
    pub fn put_manifest(
        &self,
        reference: &str,
        media_type: &'static str,
        bytes: &[u8],
    ) -> Result<()> {
        let call = Call::new(Method::PUT, self.url(&format!("manifests/{reference}")))
            .body(media_type, bytes);
        self.send(&call)?.accept().map(drop)
    }
}

const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json";

fn present(answer: Answer) -> Result<bool> {
    match answer.status() {
        404 => Ok(false),
        status if status < 300 => Ok(true),
        _ => Err(answer.into_refusal()),
    }
}

fn bounded(answer: Answer) -> Result<Vec<u8>> {
    let bytes = answer.bytes()?;
    if bytes.len() > DOCUMENT_BYTES_MAX {
        return Err(ClientError::Setting(format!(
            "a document of {} bytes is too large",
            bytes.len()
        )));
    }
    Ok(bytes)
}
