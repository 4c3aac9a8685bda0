//! Tokens that a job gets from GitHub (OIDC), exchanged by rule for tokens of the Actions cache.
//!
//! A job's claims say which repository it is, which ref it runs on, and why; GitHub's signature says that they are
//! true. The scopes follow from them as GitHub's own cache has them:
//!
//! | event | saves in | reads besides |
//! |---|---|---|
//! | `push`, `schedule`, `workflow_dispatch` and the like | its ref | the default branch |
//! | `pull_request` | `refs/pull/N/merge` | the base, the default branch |
//! | any other: `pull_request_target`, `workflow_run`, `issue_comment` … | nothing | its ref, the default branch |

use super::name::pattern_covers;
use firn_formats::actions::{NameError, RepositoryName, Scope, check_scope, is_trusted_event};
use firn_formats::admin::{ActionsGrant, TokenCreate};
pub use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};

/// Longest token looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 16 << 10;

/// Who issues tokens, and which are exchanged for what. A part of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// As its tokens name it, such as `https://token.actions.githubusercontent.com`.
    pub issuer: String,
    /// Its keys (JWKS): a URL, or a file. The issuer's `/.well-known/jwks` if absent.
    #[serde(default)]
    pub keys: Option<String>,
    /// The audience that its tokens must be for.
    pub audience: String,
    /// The first that fits a repository counts; none is no token.
    pub rules: Vec<Rule>,
}

/// Which repositories get tokens for which cache.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// `OWNER/NAME` with `*`.
    pub repository: String,
    /// The cache.
    pub cache: String,
    /// The default branch, which a job's token does not name.
    #[serde(default = "main")]
    pub default_branch: String,
    /// How long its tokens are good, in seconds.
    #[serde(default = "six_hours")]
    pub seconds: u64,
}

fn main() -> String {
    "main".to_owned()
}

fn six_hours() -> u64 {
    6 * 3600
}

/// The claims that decide.
#[derive(Debug, Clone, serde::Deserialize)]
struct Claims {
    repository: String,
    #[serde(rename = "ref")]
    reference: String,
    event_name: String,
    #[serde(default)]
    base_ref: String,
}

/// Why a token is not exchanged. Tells nothing of other repositories' rules.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum OidcFault {
    #[error("no issuer of tokens is configured")]
    NotConfigured,
    #[error("the token's issuer is not one that is configured")]
    Issuer,
    /// The keys that are known may be old.
    #[error("the token is signed by none of its issuer's keys")]
    Key,
    #[error("the token is not good")]
    Token(#[source] jsonwebtoken::errors::Error),
    #[error("the token's claims name no repository and ref")]
    Claims(#[from] NameError),
    #[error("no rule of the server is for this repository")]
    NoRule,
}

/// The issuer that a token names. It is believed nothing before its signature is checked.
///
/// # Errors
/// If it names none that is configured.
pub fn issuer<'a>(issuers: &'a [Issuer], token: &str) -> Result<&'a Issuer, OidcFault> {
    #[derive(serde::Deserialize)]
    struct Named {
        iss: String,
    }
    if issuers.is_empty() {
        return Err(OidcFault::NotConfigured);
    }
    if token.len() > TOKEN_BYTES_MAX {
        return Err(OidcFault::Issuer);
    }
    let named = jsonwebtoken::dangerous::insecure_decode::<Named>(token);
    let named = named.map_err(OidcFault::Token)?.claims;
    let found = issuers.iter().find(|issuer| issuer.issuer == named.iss);
    found.ok_or(OidcFault::Issuer)
}

/// Checks a token and says what it is exchanged for.
///
/// # Errors
/// Says why not.
pub fn exchange(issuer: &Issuer, keys: &JwkSet, token: &str) -> Result<TokenCreate, OidcFault> {
    let header = decode_header(token).map_err(OidcFault::Token)?;
    let key = header.kid.as_deref().and_then(|id| keys.find(id));
    let key = DecodingKey::from_jwk(key.ok_or(OidcFault::Key)?).map_err(OidcFault::Token)?;
    // Never what the token's header says: a token may not choose how it is checked.
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_issuer(&[&issuer.issuer]);
    validation.set_audience(&[&issuer.audience]);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    validation.validate_nbf = true;
    let claims = decode::<Claims>(token, &key, &validation).map_err(OidcFault::Token)?;
    grant(issuer, &claims.claims)
}

fn grant(issuer: &Issuer, claims: &Claims) -> Result<TokenCreate, OidcFault> {
    let repository = RepositoryName::parse(&claims.repository)?;
    let fits = |rule: &&Rule| {
        let pattern = rule.repository.to_ascii_lowercase();
        pattern_covers(&pattern, repository.as_str())
    };
    let rule = issuer.rules.iter().find(fits).ok_or(OidcFault::NoRule)?;
    Ok(TokenCreate {
        caches: vec![rule.cache.clone()],
        allow: Vec::new(),
        expires_in: Some(rule.seconds),
        note: None,
        actions: Some(ActionsGrant {
            repository: repository.to_string(),
            scopes: scopes(rule, claims)?,
        }),
    })
}

fn branch(name: &str) -> String {
    match name.starts_with("refs/") {
        true => name.to_owned(),
        false => format!("refs/heads/{name}"),
    }
}

fn scopes(rule: &Rule, claims: &Claims) -> Result<Vec<Scope>, OidcFault> {
    let own = branch(&claims.reference);
    check_scope(&own)?;
    let pull = own.starts_with("refs/pull/");
    let writes = match claims.event_name.as_str() {
        "pull_request" => pull,
        event => is_trusted_event(event),
    };
    let mut scopes = vec![match writes {
        true => Scope::write(&own),
        false => Scope::read(&own),
    }];
    let base = (pull && !claims.base_ref.is_empty()).then(|| branch(&claims.base_ref));
    for read in base.into_iter().chain([branch(&rule.default_branch)]) {
        check_scope(&read)?;
        if scopes.iter().all(|scope| scope.name != read) {
            scopes.push(Scope::read(&read));
        }
    }
    Ok(scopes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer() -> Issuer {
        serde_json::from_str(
            r#"{"issuer": "https://i", "audience": "a", "rules": [
                {"repository": "Acme/web", "cache": "main", "default_branch": "trunk"},
                {"repository": "acme/*", "cache": "other"}]}"#,
        )
        .unwrap()
    }

    fn granted(claims: &str) -> Result<(String, String), OidcFault> {
        let claims: Claims = serde_json::from_str(claims).unwrap();
        let grant = grant(&issuer(), &claims)?;
        let actions = grant.actions.unwrap();
        let scopes: Vec<String> = actions
            .scopes
            .iter()
            .map(|scope| format!("{}{}", scope.name, if scope.may_write() { "!" } else { "" }))
            .collect();
        Ok((grant.caches.join(","), scopes.join(" ")))
    }

    #[test]
    fn scopes_follow_from_the_claims() {
        for (event, reference, base, expected) in [
            ("push", "refs/heads/trunk", "", "refs/heads/trunk!"),
            ("push", "refs/heads/f", "", "refs/heads/f! refs/heads/trunk"),
            ("schedule", "refs/heads/trunk", "", "refs/heads/trunk!"),
            ("push", "refs/tags/v1", "", "refs/tags/v1! refs/heads/trunk"),
            (
                "pull_request",
                "refs/pull/3/merge",
                "f",
                "refs/pull/3/merge! refs/heads/f refs/heads/trunk",
            ),
            (
                "pull_request",
                "refs/pull/3/merge",
                "trunk",
                "refs/pull/3/merge! refs/heads/trunk",
            ),
            ("pull_request", "refs/heads/trunk", "", "refs/heads/trunk"),
            (
                "pull_request_target",
                "refs/heads/trunk",
                "trunk",
                "refs/heads/trunk",
            ),
            ("workflow_run", "refs/heads/trunk", "", "refs/heads/trunk"),
            ("issue_comment", "refs/heads/trunk", "", "refs/heads/trunk"),
            (
                "to come",
                "refs/heads/f",
                "",
                "refs/heads/f refs/heads/trunk",
            ),
        ] {
            let claims = format!(
                r#"{{"repository":"acme/Web","ref":"{reference}","event_name":"{event}","base_ref":"{base}"}}"#
            );
            let (cache, scopes) = granted(&claims).unwrap();
            assert_eq!(
                (cache.as_str(), scopes.as_str()),
                ("main", expected),
                "{event}"
            );
        }
    }

    #[test]
    fn the_first_rule_that_fits_counts_and_none_is_no_token() {
        let of = |repository: &str| {
            granted(&format!(
                r#"{{"repository":"{repository}","ref":"refs/heads/main","event_name":"push"}}"#
            ))
        };
        assert_eq!(of("acme/api").unwrap().0, "other");
        assert!(matches!(of("evil/web"), Err(OidcFault::NoRule)));
        assert!(matches!(of("evil"), Err(OidcFault::Claims(_))));
    }
}
