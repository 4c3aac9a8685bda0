//! Whom to trust: the roots that the environment names, the system's, or those built in.

use crate::error::{ClientError, Result};
use std::path::{Path, PathBuf};
use ureq::tls::{Certificate, PemItem, RootCerts};

/// Nix's own variable, which stands in for `SSL_CERT_FILE`; in builds it names a file that is not.
const NIX_VARIABLE: &str = "NIX_SSL_CERT_FILE";
const NIX_NO_FILE: &str = "/no-cert-file.crt";

/// Reads the roots: those of `NIX_SSL_CERT_FILE`, else of `SSL_CERT_FILE` and `SSL_CERT_DIR`,
/// else of the system's usual places, else Mozilla's as this program was built with them.
pub(super) fn load() -> Result<RootCerts> {
    if let Some(path) = named(NIX_VARIABLE) {
        return of_file(&path);
    }
    // The loader passes over files that are not there; who names one means it.
    if let Some(path) = named("SSL_CERT_FILE") {
        std::fs::File::open(&path).map_err(|source| ClientError::io(&path, source))?;
    }
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "a certificate of the system is passed over");
    }
    let certificates: Vec<_> = found
        .certs
        .iter()
        .map(|certificate| Certificate::from_der(certificate).to_owned())
        .collect();
    Ok(match certificates.is_empty() {
        true => RootCerts::WebPki,
        false => RootCerts::from(certificates),
    })
}

fn named(variable: &str) -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os(variable)?);
    let named = !path.as_os_str().is_empty() && path != Path::new(NIX_NO_FILE);
    named.then_some(path)
}

fn of_file(path: &Path) -> Result<RootCerts> {
    let pem = std::fs::read(path).map_err(|source| ClientError::io(path, source))?;
    let certificates: Vec<_> = ureq::tls::parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        let nothing = std::io::Error::other("it has no certificate");
        return Err(ClientError::io(path, nothing));
    }
    Ok(RootCerts::from(certificates))
}
