//! Secrets stay out of logs, of the server's and of clients', whatever level they have.

use base64::Engine as _;
use firn_testkit::rigs::closure::Closure;
use firn_testkit::rigs::nix::Nix;
use firn_testkit::rigs::program::{Outcome, run};
use firn_testkit::rigs::serve::{Server, User};
use firn_testkit::rigs::{Release, skopeo};

const WRONG: &str = "wrong-token-0123456789abcdef";

/// A token, and what it looks like in a Basic header.
fn forms(token: &str) -> Vec<String> {
    let basic = |user: &str| {
        let text = format!("{user}:{token}");
        base64::engine::general_purpose::STANDARD.encode(text)
    };
    // A JWT's signature is the part that makes it a secret.
    let signature = token.rsplit('.').next().unwrap_or(token).to_owned();
    vec![signature, basic("firn"), basic("user"), basic("")]
}

/// What the files of a data folder hold.
fn in_files(server: &Server) -> Vec<String> {
    let read = |name: &str| std::fs::read_to_string(server.data().join(name)).unwrap();
    let mut secrets = forms(read("admin.token").trim());
    secrets.extend(read("token.key").split_whitespace().map(str::to_owned));
    for line in read("keys/main.secret").lines() {
        let (_, key) = line.split_once(':').unwrap();
        secrets.push(key.split_whitespace().next().unwrap().to_owned());
    }
    secrets
}

#[test]
fn no_log_holds_a_secret() {
    let server = Server::start_with(env!("CARGO_BIN_EXE_firn"), "{}", "trace");
    let closure = Closure::first();
    let path = closure.path_of("gcc-12-base");
    let mut secrets = in_files(&server);
    secrets.extend(forms(WRONG));
    let admin = User::admin(&server);
    let stranger = User::new(&server, Some(WRONG.to_owned()));
    let mut said = String::new();
    let mut firn = |user: &User, arguments: &[&str]| -> Outcome {
        let outcome = run(user.command().args(arguments).env("FIRN_LOG", "trace"));
        said.push_str(&outcome.stderr);
        outcome
    };
    firn(&stranger, &["push", &path]).refused();
    firn(&stranger, &["image", "push", "--name", "x:1", &path]).refused();
    firn(&admin, &["push", &path]).ok();
    firn(&admin, &["image", "push", "--name", "x:1", &path]).ok();
    let token = firn(&admin, &["token", "create", "--allow", "pull,push"]).ok();
    secrets.extend(forms(token.trim()));
    firn(&admin, &["pull", &path, "--to", "pulled", "--trust"]).ok();
    firn(&admin, &["cache", "key", "rotate", "main"]).ok();
    firn(&admin, &["token", "rotate"]).ok();
    firn(&admin, &["status", &path]).ok();
    secrets.extend(in_files(&server));

    // Nix and skopeo, which send Basic; the latter asks for a token of the registry's own.
    for (token, good) in [(WRONG, false), (token.trim(), true)] {
        let nix = Nix::new(Release::Trixie);
        nix.netrc("127.0.0.1", token);
        // The one is here already, the other is not.
        let pushed = if good { &path } else { &closure.root };
        let copied = nix.copy_to(&server.cache("main"), &[pushed]);
        assert_eq!(copied.status.success(), good, "{copied}");
        let from = format!("docker://{}/main/x:1", server.address());
        let to = format!("dir:{}", nix.path("image").display());
        let credentials = format!("--src-creds=user:{token}");
        let options = [credentials.as_str()];
        let copied = skopeo::copy(Release::Trixie, &options, &from, &to);
        // Anyone may pull from this cache; whether wrong credentials hinder is the registry's test.
        assert!(copied.status.success() || !good, "{copied}");
    }
    let log = server.log();
    assert!(
        log.contains("DEBUG") && log.contains("path=\"/api/v1/tokens\""),
        "the log says little:\n{log}"
    );
    assert!(said.contains("DEBUG"), "clients say little:\n{said}");
    for secret in secrets.iter().filter(|secret| secret.len() >= 16) {
        for (whose, text) in [("the server's", &log), ("a client's", &said)] {
            let line = text.lines().find(|line| line.contains(secret.as_str()));
            assert!(line.is_none(), "{whose} log: {line:?}");
        }
    }
}
