//! Pushing to any registry: credential helpers, broken uploads that go on, and what is seen on a terminal.

use firn_testkit::rigs::{
    closure::Closure,
    cut::Cut,
    ghcr::{Ghcr, Quirks, WRITER},
    program::{self, run},
    registry::Registry,
    serve::User,
};

/// Of a large upload that gets through before the connection breaks.
const CUT_BYTES: u64 = 1 << 20;

fn alone() -> User {
    User::alone(env!("CARGO_BIN_EXE_firn"))
}

/// Where the other side keeps what it got of a broken upload, it is sent the rest, and else all of it.
fn goes_on(user: &User, registry: &str, keeps: bool, to: &dyn Fn(&str) -> Vec<String>) {
    let closure = Closure::first();
    let cut = Cut::before(registry, CUT_BYTES);
    let fixed = [
        "image",
        "push",
        "--no-paths",
        "--compression",
        "none",
        "--max-layers",
        "2",
    ];
    let target = to(cut.address());
    let target: Vec<&str> = target.iter().map(String::as_str).collect();
    let pushed = user.json(&[&fixed[..], &target, &[&closure.root]].concat());
    assert_eq!(pushed["layers_sent"], pushed["layers_total"], "{pushed}");
    let passed = cut.passed();
    let resumed: Vec<_> = passed
        .iter()
        .filter(|passed| passed.range.is_some())
        .collect();
    assert_eq!(resumed.len(), usize::from(keeps), "{passed:#?}");
    let large = passed
        .iter()
        .filter(|passed| passed.method == "PUT" && passed.length > CUT_BYTES);
    let large: Vec<u64> = large.map(|passed| passed.length).collect();
    let rest = large[0] - if keeps { CUT_BYTES } else { 0 };
    assert!(
        large.len() == 2 && large[1] <= large[0] && large[1] >= rest,
        "{passed:#?}"
    );
    let again = user.json(&[&fixed[..], &target, &[&closure.root]].concat());
    assert_eq!(again["layers_sent"], 0, "{again}");
    assert_eq!(again["digest"], pushed["digest"]);
}

/// docker-registry knows how far it got only after whole requests.
#[test]
fn a_broken_upload_to_a_registry_that_cannot_go_on_begins_again() {
    let registry = Registry::start();
    let to = |address: &str| vec!["--to".to_owned(), format!("{address}/team/app:1")];
    goes_on(&alone(), registry.address(), false, &to);
}

#[test]
fn a_broken_upload_to_firn_goes_on_where_it_broke() {
    let server = crate::server();
    let creds = format!("token:{}", server.token());
    let to = |address: &str| {
        let to = format!("{address}/main/app:1");
        vec![
            "--to".to_owned(),
            to,
            "--dest-creds".to_owned(),
            creds.clone(),
        ]
    };
    goes_on(&alone(), server.address(), true, &to);
}

/// docker's config names a program that knows the password; it is asked by docker's protocol.
#[test]
fn credential_helpers_are_asked() {
    let ghcr = Ghcr::with(Quirks::calm());
    let closure = Closure::first();
    let user = alone();
    let bin = user.home().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let (name, password) = WRITER.split_once(':').unwrap();
    let script = format!(
        r#"test "$1" = get && test "$(cat)" = "{}" || {{ echo 'credentials not found in native keychain'; exit 1; }}
           echo '{{"ServerURL":"x","Username":"{name}","Secret":"{password}"}}'"#,
        ghcr.address()
    );
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &script, "sh"]);
    program::shim(&bin, "docker-credential-test", &shell);
    let push = |config: &str, tag: &str| {
        std::fs::write(user.home().join("config.json"), config).unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let to = format!("{}/acme/app:{tag}", ghcr.address());
        run(user
            .bare_command()
            .env("PATH", path)
            .env("DOCKER_CONFIG", user.home())
            .args(["image", "push", "--no-paths", "--to", &to, &closure.root]))
    };
    let address = ghcr.address();
    push(
        &format!(r#"{{"credHelpers": {{"{address}": "test"}}}}"#),
        "1",
    )
    .ok();
    push(r#"{"credsStore": "test"}"#, "2").ok();
    // A helper that knows nothing, or is not there, leaves what else the config says.
    let auth =
        run(program::command("sh").args(["-c", &format!("printf %s {WRITER} | base64 -w0")])).ok();
    let auths = format!(r#""auths": {{"{address}": {{"auth": "{auth}"}}}}"#);
    push(&format!(r#"{{"credsStore": "absent", {auths}}}"#), "3").ok();
    let said = push(r#"{"credHelpers": {"other.example": "test"}}"#, "4").refused();
    assert!(said.contains("hint:"), "{said}");
}

/// On a terminal each layer that moves has a bar of its own.
#[test]
fn a_terminal_shows_a_bar_for_each_layer() {
    let registry = Registry::start();
    let closure = Closure::first();
    let user = alone();
    let to = format!("{}/team/app:1", registry.address());
    let line = format!(
        "stty cols 100; {} image push --no-paths --to {to} {}",
        env!("CARGO_BIN_EXE_firn"),
        closure.root
    );
    let mut shell = user.bare_command();
    // The last of its arguments is the program; what is wanted is its surroundings.
    let surroundings: Vec<_> = shell
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
        .collect();
    shell = program::command("script");
    shell.envs(surroundings).env("TERM", "xterm");
    let said = run(shell.args(["--quiet", "--return", "--command", &line, "/dev/null"])).ok();
    let manifest = alone().json(&["image", "inspect", &to]);
    let layers = manifest["manifest"]["layers"].as_array().unwrap();
    let shown = layers.iter().filter(|layer| {
        let digest = layer["digest"].as_str().unwrap();
        said.contains(&digest[7..19])
    });
    assert!(shown.count() > 0, "{said:?}");
}
