//! The registry door: `/v2/…`, as the distribution specification has it.

mod blobs;
mod manifests;
mod token;
mod uploads;

use crate::app::{App, JSON, WorkerFailed, bare, blocking, respond, status};
use crate::auth::{Peer, identify, peer};
use crate::body::Body;
use crate::gate::Busy;
use crate::query::parse_query;
use firn_formats::admin::Right;
use firn_formats::oci::{Digest, ErrorCode};
use firn_services::registry::{RegistryError, Repository};
use firn_services::{Identity, Refusal, ServiceError};
use http::header::{HeaderName, HeaderValue, LINK, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use std::sync::Arc;

const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const REALM_SERVICE: &str = "firn";

/// What a path below `/v2/` names.
#[derive(Debug, PartialEq, Eq)]
enum Target<'a> {
    Ping,
    Catalog,
    Token,
    Uploads,
    Upload(&'a str),
    Blob(&'a str),
    Manifest(&'a str),
    Tags,
    Referrers(&'a str),
}

/// Takes a path apart: the image's name and what is asked of it. Names may hold anything but
/// the words of the specification at the end.
fn split(path: &str) -> Option<(&str, Target<'_>)> {
    let rest = path.strip_prefix("/v2")?.strip_prefix('/').unwrap_or("");
    match rest {
        "" => return Some(("", Target::Ping)),
        "_catalog" => return Some(("", Target::Catalog)),
        "_token" => return Some(("", Target::Token)),
        _ => {}
    }
    if let Some(name) = rest.strip_suffix("/tags/list") {
        return Some((name, Target::Tags));
    }
    for ending in ["/blobs/uploads", "/blobs/uploads/"] {
        if let Some(name) = rest.strip_suffix(ending) {
            return Some((name, Target::Uploads));
        }
    }
    let (parent, last) = rest.rsplit_once('/')?;
    if let Some(name) = parent.strip_suffix("/blobs/uploads") {
        return Some((name, Target::Upload(last)));
    }
    if let Some(name) = parent.strip_suffix("/blobs") {
        return Some((name, Target::Blob(last)));
    }
    if let Some(name) = parent.strip_suffix("/manifests") {
        return Some((name, Target::Manifest(last)));
    }
    let name = parent.strip_suffix("/referrers")?;
    Some((name, Target::Referrers(last)))
}

/// A request's parts, as the handlers need them.
struct Call {
    app: Arc<App>,
    who: Identity,
    peer: Peer,
    name: String,
    method: Method,
    headers: HeaderMap,
    query: Vec<(String, String)>,
}

/// A refusal on the wire.
enum Failure {
    Registry(RegistryError),
    Access(Refusal, Right),
    Worker,
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}
impl From<WorkerFailed> for Failure {
    fn from(_: WorkerFailed) -> Self {
        Self::Worker
    }
}

impl From<Busy> for Failure {
    fn from(_: Busy) -> Self {
        Self::Registry(ServiceError::Busy.into())
    }
}

type Answer = Result<Response<Body>, Failure>;

impl Call {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The repository, if the caller has the right on its cache.
    fn repository(&self, right: Right) -> Result<Repository, Failure> {
        let registry = &self.app.services.registry;
        let (cache, rest) = registry.split_name(&self.who, &self.name)?;
        let cache = self
            .app
            .services
            .access
            .authorize(&self.who, &cache, right)
            .map_err(|refusal| Failure::Access(refusal, right))?;
        Ok(Repository {
            cache,
            name: rest.to_owned(),
        })
    }

    fn digest(text: &str) -> Result<Digest, RegistryError> {
        Digest::parse(text)
            .map_err(|error| RegistryError::with(ErrorCode::DigestInvalid, error.to_string()))
    }

    /// Work for a blocking thread.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&App) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, Failure> {
        let app = self.app.clone();
        Ok(blocking(move || work(&app)).await??)
    }

    fn challenge(&self, right: Option<Right>) -> String {
        let mut challenge = format!(
            "Bearer realm=\"{}/v2/_token\",service=\"{REALM_SERVICE}\"",
            self.app.base_url(&self.headers)
        );
        let actions = match right {
            None => return challenge,
            Some(Right::Pull) => "pull",
            Some(Right::Create | Right::Push) => "pull,push",
            Some(Right::Delete | Right::Admin) => "delete",
        };
        challenge.push_str(&format!(",scope=\"repository:{}:{actions}\"", self.name));
        challenge
    }

    fn unauthorized(&self, refusal: Refusal, right: Option<Right>) -> Response<Body> {
        let error = RegistryError::with(ErrorCode::Unauthorized, refusal.to_string());
        let mut response = respond(StatusCode::UNAUTHORIZED, JSON, error.body());
        if let Ok(value) = HeaderValue::try_from(self.challenge(right)) {
            response.headers_mut().insert(WWW_AUTHENTICATE, value);
        }
        response
    }

    fn refuse(&self, failure: Failure) -> Response<Body> {
        match failure {
            Failure::Worker => respond(
                StatusCode::INTERNAL_SERVER_ERROR,
                JSON,
                RegistryError::new(ErrorCode::Unknown).body(),
            ),
            Failure::Registry(error) => {
                if error.http_status() >= 500 {
                    let cause = error
                        .source
                        .as_ref()
                        .map(firn_services::ServiceError::chain);
                    tracing::error!(%error, cause, "request failed");
                }
                respond(status(error.http_status()), JSON, error.body())
            }
            Failure::Access(Refusal::NotFound, _) => {
                let error = RegistryError::with(ErrorCode::NameUnknown, self.name.clone());
                respond(status(error.http_status()), JSON, error.body())
            }
            Failure::Access(refusal, right) => {
                let scoped = matches!(&self.who, Identity::Token(claims) if claims.registry);
                if refusal == Refusal::Denied && !scoped {
                    let error = RegistryError::with(ErrorCode::Denied, refusal.to_string());
                    return respond(status(error.http_status()), JSON, error.body());
                }
                // A token for other scopes: the client may ask for one with this.
                self.unauthorized(refusal, Some(right))
            }
        }
    }

    fn ping(&self) -> Response<Body> {
        match &self.who {
            Identity::Token(_) => respond(StatusCode::OK, JSON, "{}"),
            Identity::Anonymous => self.unauthorized(Refusal::Unauthorized, None),
            Identity::Refused(fault) => self.unauthorized(Refusal::BadToken(*fault), None),
        }
    }

    /// containerd 1.x cannot send a manifest again that was answered with 401, and where all blobs are here
    /// already the manifest is the first that it sends. So it is asked for credentials when it looks whether the
    /// manifest is here, as the registries do that ask for a token for everything. Who has none gets a token to
    /// pull with.
    fn needs_a_token_early(&self, target: &Target<'_>) -> bool {
        matches!(target, Target::Manifest(_))
            && self.method == Method::HEAD
            && matches!(self.who, Identity::Anonymous)
            && self
                .header(http::header::USER_AGENT)
                .is_some_and(|agent| agent.starts_with("containerd/1."))
    }

    /// Whether what is not here may be in a cache of a longer name that the caller has not shown to have a right on:
    /// `a/b/c` is the image `b/c` of `a`, or `c` of `a/b`. Clients such as containerd bring their credentials only
    /// when they are asked for them. Asked alike whether there is such a cache or not.
    fn may_see_more(&self) -> bool {
        let registry = &self.app.services.registry;
        let Ok((cache, _)) = registry.split_name(&self.who, &self.name) else {
            return false;
        };
        if self.name.matches('/').count() < 2 || cache.contains('/') {
            return false;
        }
        match &self.who {
            Identity::Anonymous | Identity::Refused(_) => true,
            // Made for some scope, of a token that may give more.
            Identity::Token(claims) => {
                claims.registry && claims.parent.is_some() && !self.who.has_any_right(&cache)
            }
        }
    }

    async fn catalog(&self) -> Answer {
        let who = self.who.clone();
        let last = self.parameter("last").map(str::to_owned);
        let count = self.count()?.unwrap_or(firn_services::registry::LIST_MAX);
        let page = self
            .work(move |app| {
                let caches = app.services.access.caches(&who, Right::Pull);
                let registry = &app.services.registry;
                registry.catalog(&caches, count, last.as_deref())
            })
            .await?;
        let link = match page.names.last() {
            Some(last) if page.more => Some(("/v2/_catalog".to_owned(), last.clone())),
            _ => None,
        };
        let body = serde_json::json!({ "repositories": page.names }).to_string();
        Ok(listed(body, count, link))
    }

    async fn tags(&self) -> Answer {
        let repository = self.repository(Right::Pull)?;
        let count = self.count()?;
        let last = self.parameter("last").map(str::to_owned);
        let page = self
            .work(move |app| {
                let registry = &app.services.registry;
                registry.tags(&repository, count, last.as_deref())
            })
            .await?;
        let path = format!("/v2/{}/tags/list", self.name);
        let link = match page.names.last() {
            Some(last) if page.more => Some((path, last.clone())),
            _ => None,
        };
        let count = count.unwrap_or(page.names.len());
        let body = serde_json::json!({ "name": self.name, "tags": page.names }).to_string();
        Ok(listed(body, count, link))
    }

    fn count(&self) -> Result<Option<usize>, RegistryError> {
        self.parameter("n")
            .map(|text| {
                text.parse().map_err(|_| RegistryError {
                    status: Some(400),
                    ..RegistryError::with(ErrorCode::Unsupported, "n is not a number")
                })
            })
            .transpose()
    }
}

fn listed(body: String, count: usize, link: Option<(String, String)>) -> Response<Body> {
    let mut response = respond(StatusCode::OK, JSON, body);
    if let Some((path, last)) = link
        && let Ok(value) =
            HeaderValue::try_from(format!("<{path}?n={count}&last={last}>; rel=\"next\""))
    {
        response.headers_mut().insert(LINK, value);
    }
    response
}

/// One request to this door.
pub(crate) async fn handle(app: Arc<App>, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Some((name, target)) = split(parts.uri.path()) else {
        let error = RegistryError::with(ErrorCode::NameInvalid, "no such endpoint");
        return respond(StatusCode::NOT_FOUND, JSON, error.body());
    };
    let call = Call {
        who: identify(&app.services.access, &parts.headers),
        peer: peer(&parts.extensions),
        app,
        name: name.to_owned(),
        method: parts.method,
        headers: parts.headers,
        query: parse_query(parts.uri.query().unwrap_or_default()),
    };
    let mut response = match route(&call, &target, body).await {
        Ok(response) => response,
        Err(Failure::Registry(error)) if error.http_status() == 404 && call.may_see_more() => {
            call.refuse(Failure::Access(Refusal::Unauthorized, Right::Pull))
        }
        Err(failure) => call.refuse(failure),
    };
    response
        .headers_mut()
        .insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    response
}

async fn route(call: &Call, target: &Target<'_>, body: Incoming) -> Answer {
    let reading = matches!(call.method, Method::GET | Method::HEAD);
    if call.needs_a_token_early(target) {
        return Err(Failure::Access(Refusal::Unauthorized, Right::Pull));
    }
    match target {
        Target::Ping if reading => Ok(call.ping()),
        Target::Catalog if reading => call.catalog().await,
        Target::Token if reading || call.method == Method::POST => token::issue(call, body).await,
        Target::Tags if reading => call.tags().await,
        Target::Referrers(digest) if reading => manifests::referrers(call, digest).await,
        Target::Blob(digest) if reading => blobs::get(call, digest).await,
        Target::Blob(digest) if call.method == Method::DELETE => blobs::delete(call, digest).await,
        Target::Manifest(reference) => manifests::handle(call, reference, body).await,
        Target::Uploads if call.method == Method::POST => uploads::begin(call, body).await,
        Target::Upload(id) => uploads::handle(call, id, body).await,
        _ => Ok(bare(StatusCode::METHOD_NOT_ALLOWED)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_come_apart_into_name_and_target() {
        for (path, expected) in [
            ("/v2", Some(("", Target::Ping))),
            ("/v2/", Some(("", Target::Ping))),
            ("/v2/main/app/tags/list", Some(("main/app", Target::Tags))),
            (
                "/v2/main/app/blobs/uploads/",
                Some(("main/app", Target::Uploads)),
            ),
            (
                "/v2/main/app/blobs/uploads/x",
                Some(("main/app", Target::Upload("x"))),
            ),
            (
                "/v2/main/blobs/blobs/sha256:0",
                Some(("main/blobs", Target::Blob("sha256:0"))),
            ),
            (
                "/v2/a/b/c/manifests/latest",
                Some(("a/b/c", Target::Manifest("latest"))),
            ),
            ("/v2/main/app", None),
            ("/other", None),
        ] {
            assert_eq!(split(path), expected, "{path}");
        }
    }
}
