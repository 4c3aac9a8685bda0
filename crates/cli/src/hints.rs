//! What to do about a failure. The libraries say what is wrong; only the command line knows its own words.

use crate::failure::Failure;
use firn_client::ClientError;
use firn_formats::push::ApiErrorCode;
use firn_server::StoreError;

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        hints(&error).into_iter().fold(Self::of(&error), Self::hint)
    }
}

fn hints(error: &ClientError) -> Vec<String> {
    let text = match error {
        ClientError::Refused {
            status,
            code,
            hint,
            url,
            ..
        } => {
            return refused(*status, *code, hint.as_deref(), url);
        }
        error if error.is_distrust() => {
            "SSL_CERT_FILE=FILE names the authorities to trust, in place of the system's"
        }
        ClientError::Unreachable { .. } => {
            "is the server there? `firn serve` starts one; --server or FIRN_SERVER says where it is"
        }
        ClientError::PathNotValid { path } => {
            return vec![format!(
                "it is not in the local store; `nix-store --realise {path}` builds or fetches it"
            )];
        }
        ClientError::NixDatabase { .. } => {
            "is Nix installed here? NIX_STATE_DIR says where its state lies, if not in /nix/var/nix"
        }
        ClientError::Unresolvable { .. } => {
            "a PATH is a store path, a link such as ./result, or a flake installable such as .#app \
             (which needs nix)"
        }
        ClientError::Untrusted { .. } | ClientError::NoTrustedKey { .. } => {
            "--public-key NAME:KEY trusts a key, --trust the one that the server names"
        }
        ClientError::ForeignStore { .. } => {
            "paths of other store folders cannot be substituted by anyone else"
        }
        ClientError::Location { .. } => {
            "a store is /FOLDER, ./FOLDER, s3://BUCKET/PREFIX or oci://REGISTRY/NAME"
        }
        ClientError::Store(error) => return store(error),
        ClientError::Url(_) => "a URL looks like https://cache.example.org or 127.0.0.1:8484",
        ClientError::Compression { .. } => {
            "zstd, xz and none can be unpacked; Nix itself knows the others"
        }
        ClientError::CommandMissing { .. } => "the program has to be in PATH",
        ClientError::Archive(_) => {
            "`nix-store --verify --check-contents` finds damaged paths of the local store"
        }
        _ => return Vec::new(),
    };
    vec![text.to_owned()]
}

/// A store without a server.
fn store(error: &StoreError) -> Vec<String> {
    let text = match error {
        StoreError::Backend { source, .. } => {
            // A registry's refusal has hints of its own.
            return source
                .downcast_ref::<ClientError>()
                .map(hints)
                .unwrap_or_default();
        }
        StoreError::ServerFolder(_) => "--server URL speaks to the server of that folder",
        StoreError::Full(_) => "XDG_CACHE_HOME can name a folder with more space",
        StoreError::Database(_) => {
            "the index of the store is kept below the user's cache folder and may be deleted"
        }
        StoreError::MissingChunks(_) | StoreError::Damaged(_) => {
            "a second --storage with the same paths is asked for what the first has lost"
        }
        _ => return Vec::new(),
    };
    vec![text.to_owned()]
}

fn refused(status: u16, code: Option<ApiErrorCode>, hint: Option<&str>, url: &str) -> Vec<String> {
    if let Some(hint) = hint {
        return vec![hint.to_owned()];
    }
    // A registry, or whoever gives out its tokens.
    let registry = url.contains("/v2/") || url.contains("scope=repository:");
    let text = match (status, code) {
        (401, _) if registry => {
            "`docker login` keeps credentials for a registry; FIRN_DEST_CREDS=USER:TOKEN gives them once"
        }
        (401, _) => "`firn login URL` keeps a token for the server; FIRN_TOKEN gives one for once",
        (_, Some(ApiErrorCode::QuotaExceeded)) => {
            "`firn cache show` tells what the cache holds; an admin may raise its quota"
        }
        (403, _) if registry => "the credentials do not allow to push there",
        (403, _) => {
            "`firn token create --cache CACHE --allow pull,push` makes a token that may, given an admin's"
        }
        (_, Some(ApiErrorCode::HashMismatch)) => {
            "a path differs from what the Nix database says; `nix-store --verify-path PATH` checks it"
        }
        (_, Some(ApiErrorCode::StorageFull)) => "the server needs more space",
        (_, Some(ApiErrorCode::NotFound)) => "`firn cache list` shows the caches there are",
        (413, _) => "a proxy before the server may limit the size of requests; it must allow 8 MiB",
        _ => return Vec::new(),
    };
    vec![text.to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, code: Option<ApiErrorCode>, url: &str) -> Vec<String> {
        Failure::from(ClientError::Refused {
            url: url.to_owned(),
            status,
            code,
            message: "no".to_owned(),
            hint: None,
        })
        .lines()
    }

    #[test]
    fn refusals_name_the_next_step() {
        let lines = refusal(401, None, "http://h/api/v1/whoami");
        assert_eq!(lines[0], "error: http://h/api/v1/whoami: no (HTTP 401)");
        assert!(lines[1].starts_with("hint: `firn login URL`"));
        let lines = refusal(401, None, "http://h/v2/a/blobs/uploads/");
        assert!(lines[1].contains("FIRN_DEST_CREDS"));
        assert_eq!(refusal(418, None, "http://h/").len(), 1);
    }

    #[test]
    fn the_servers_own_hint_wins() {
        let failure = Failure::from(ClientError::Refused {
            url: "u".to_owned(),
            status: 401,
            code: None,
            message: "m".to_owned(),
            hint: Some("do this".to_owned()),
        });
        assert_eq!(failure.lines()[1..], ["hint: do this"]);
    }

    #[test]
    fn sources_are_joined_into_one_line() {
        let failure = Failure::from(ClientError::Io {
            path: "/a/b".into(),
            source: std::io::Error::new(std::io::ErrorKind::NotFound, "gone\n  away"),
        });
        assert_eq!(failure.lines(), ["error: /a/b: gone away"]);
    }

    #[test]
    fn a_missing_path_says_how_to_get_it() {
        let failure = Failure::from(ClientError::PathNotValid {
            path: "/nix/store/x".to_owned(),
        });
        assert!(failure.lines()[1].contains("nix-store --realise /nix/store/x"));
    }
}
