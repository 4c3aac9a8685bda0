//! skopeo of both releases.

use super::Release;
use super::program::{Outcome, run};

/// Copies an image; plain HTTP is allowed on both sides. `extra` are further options.
pub fn copy(release: Release, extra: &[&str], source: &str, destination: &str) -> Outcome {
    run(release
        .command("skopeo")
        .args(["--insecure-policy", "copy", "--quiet"])
        .args(["--src-tls-verify=false", "--dest-tls-verify=false"])
        .args(extra)
        .args([source, destination]))
}

/// The manifest as it is stored.
pub fn raw_manifest(release: Release, credentials: &str, image: &str) -> Outcome {
    run(release
        .command("skopeo")
        .args([
            "--insecure-policy",
            "inspect",
            "--raw",
            "--tls-verify=false",
        ])
        .args(["--creds", credentials, image]))
}
