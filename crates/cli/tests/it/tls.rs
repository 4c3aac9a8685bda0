//! Whom `firn` trusts: an authority that the environment or the machine names, and no other.

use firn_testkit::rigs::closure::Closure;
use firn_testkit::rigs::program::{Outcome, command, run};
use firn_testkit::rigs::serve::{Server, User};
use firn_testkit::rigs::tls::Tls;
use std::process::Command;

/// A command of somebody who knows the server by its `https` URL; the variables of this machine
/// that name certificates are taken away.
fn firn(server: &Server, tls: &Tls, arguments: &[&str]) -> (User, Command) {
    let user = User::admin(server);
    let mut command = user.command();
    command.args(arguments).env("FIRN_SERVER", tls.url());
    for name in ["NIX_SSL_CERT_FILE", "SSL_CERT_FILE", "SSL_CERT_DIR"] {
        command.env_remove(name);
    }
    (user, command)
}

/// Runs a command where a shell line has changed the machine's certificates, for it alone.
fn elsewhere(change: &str, inner: &Command) -> Outcome {
    let mut outer = command("unshare");
    outer
        .args(["--mount", "--propagation", "private", "sh", "-ec"])
        .arg(format!("{change}\nexec \"$@\""))
        .arg("sh")
        .arg(inner.get_program())
        .args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    run(&mut outer)
}

fn is_distrust(said: &str) -> bool {
    said.contains("UnknownIssuer") && said.contains("hint: SSL_CERT_FILE=")
}

#[test]
fn an_authority_that_the_environment_names_is_trusted() {
    let server = crate::server();
    let tls = Tls::before(server.address());
    let closure = Closure::first();
    for (name, value) in [
        ("SSL_CERT_FILE", tls.authority()),
        ("SSL_CERT_DIR", tls.authorities()),
        ("NIX_SSL_CERT_FILE", tls.authority()),
    ] {
        let (_user, mut push) = firn(&server, &tls, &["push", &closure.root]);
        run(push.env(name, value)).ok();
    }
    let (_user, mut push) = firn(&server, &tls, &["push", &closure.root]);
    let said = run(push.env("SSL_CERT_FILE", "/nowhere/ca.pem")).refused();
    assert!(said.contains("/nowhere/ca.pem"), "{said}");
}

#[test]
fn an_authority_of_the_machine_is_trusted() {
    let server = crate::server();
    let tls = Tls::before(server.address());
    let (_user, stats) = firn(&server, &tls, &["stats"]);
    let bundle = "/etc/ssl/certs/ca-certificates.crt";
    let change = format!("mount --bind '{}' {bundle}", tls.authority().display());
    elsewhere(&change, &stats).ok();
}

/// A proxy sends who speaks plain HTTP to `https`; only then are the authorities asked for.
#[test]
fn a_redirect_to_https_is_followed_with_trust() {
    let server = crate::server();
    let tls = Tls::before(server.address());
    // A token goes to the server it was meant for only; the public key needs none.
    let (_user, mut show) = firn(&server, &tls, &["use", "main", "--print"]);
    show.env("FIRN_SERVER", tls.redirecting_url());
    assert!(is_distrust(&run(&mut show).refused()));
    let said = run(show.env("SSL_CERT_FILE", tls.authority())).ok();
    assert!(said.contains(&server.public_key("main")), "{said}");
}

/// Neither the machine's authorities nor those built in have signed the test's.
#[test]
fn an_unknown_authority_is_not_trusted() {
    let server = crate::server();
    let tls = Tls::before(server.address());
    let (_user, stats) = firn(&server, &tls, &["stats"]);
    let without_any = "for path in /etc/ssl/certs /usr/lib/ssl; do mount -t tmpfs none $path; done";
    for change in [":", without_any] {
        let said = elsewhere(change, &stats).refused();
        assert!(is_distrust(&said), "{change}: {said}");
    }
}

/// Plain HTTP asks for no certificate, so none has to be readable.
#[test]
fn plain_http_reads_no_certificates() {
    let server = crate::server();
    let user = User::admin(&server);
    run(user
        .command()
        .arg("stats")
        .env("SSL_CERT_FILE", "/nowhere/ca.pem"))
    .ok();
}
