//! Which rights requests have: the token is found out by the first refusal, shared by all threads, renewed
//! when it ends, and exchanged for another when more is wanted than it allows.

use super::{
    Repository,
    auth::{Bearer, Challenge},
};
use crate::{
    credentials::Credential,
    error::Result,
    http::{Answer, Call},
    push::work::lock,
};

/// What a request does. A token for one allows all before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Access {
    #[default]
    Pull,
    Push,
    Delete,
}

impl Access {
    /// As the scope of a token names it (distribution's token specification).
    fn actions(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
            Self::Delete => "pull,push,delete",
        }
    }
}

/// The `Authorization` header that works, as far as is known.
#[derive(Default)]
pub(super) struct Rights {
    header: Option<String>,
    /// Where a token comes from, once the registry has said so.
    bearer: Option<Bearer>,
    /// What the header allows.
    access: Access,
    least: Access,
}

// By hand: the header is never shown.
impl std::fmt::Debug for Rights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rights")
            .field("bearer", &self.bearer)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

impl Rights {
    /// A header that is sent without being asked for.
    pub(super) fn given(header: Option<String>) -> Self {
        Self {
            header,
            ..Self::default()
        }
    }

    pub(super) fn expect_at_least(&mut self, access: Access) {
        self.least = self.least.max(access);
    }
}

impl Repository {
    /// Sends, answering one challenge. Refusals are answers.
    pub(super) fn send(&self, call: &Call<'_>, access: Access) -> Result<Answer> {
        let header = self.authorization(access, call.url())?;
        let answer = self
            .http
            .send(&call.clone().authorization(header.as_deref()))?;
        // Who was reached by a redirect away from the registry speaks for himself.
        let asked = answer.status() == 401 && !answer.left_origin();
        if !asked || !self.answer_challenge(&answer, access, header.as_deref())? {
            return Ok(answer);
        }
        let header = self.authorization(access, call.url())?;
        self.http
            .send(&call.clone().authorization(header.as_deref()))
    }

    /// The header for a request to `url`; other hosts than the registry's are told nothing.
    pub(super) fn authorization(&self, access: Access, url: &str) -> Result<Option<String>> {
        if !self.is_own(url) {
            return Ok(None);
        }
        let mut rights = lock(&self.rights);
        if rights.access < access
            && let Some(bearer) = rights.bearer.clone()
        {
            self.exchange(&mut rights, &bearer, access)?;
        }
        Ok(rights.header.clone())
    }

    /// Gets what a challenge asks for; false if there is nothing new to try. Who comes second waits, and takes
    /// what the first got.
    fn answer_challenge(
        &self,
        answer: &Answer,
        access: Access,
        tried: Option<&str>,
    ) -> Result<bool> {
        let mut rights = lock(&self.rights);
        if rights.header.as_deref() != tried {
            return Ok(true);
        }
        let challenge = answer.header("WWW-Authenticate").and_then(Challenge::parse);
        match challenge {
            Some(Challenge::Bearer(bearer)) => {
                bearer.check(&self.origin())?;
                self.exchange(&mut rights, &bearer, access)?;
            }
            Some(Challenge::Basic) => {
                if let Some(credential) = &self.credential {
                    rights.header = Some(credential.basic_header());
                }
            }
            None => {}
        }
        Ok(rights.header.as_deref() != tried)
    }

    fn exchange(&self, rights: &mut Rights, bearer: &Bearer, access: Access) -> Result<()> {
        let access = access.max(rights.access).max(rights.least);
        let own = format!("repository:{}:{}", self.name.as_str(), access.actions());
        let mut scopes = vec![own];
        if access >= Access::Push {
            let others = self.mounted.iter();
            scopes.extend(others.map(|other| format!("repository:{}:pull", other.as_str())));
        }
        let credential: Option<&Credential> = self.credential.as_ref();
        rights.header = Some(bearer.token(&self.http, &scopes, credential)?);
        rights.bearer = Some(bearer.clone());
        rights.access = access;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
