//! `firn use` where Nix is not as the block alone would have it: what is seen, said, left alone and taken back.

use firn_testkit::rigs::Release;
use firn_testkit::rigs::nix::Nix;
use firn_testkit::rigs::program::{self, Outcome, run};
use firn_testkit::rigs::serve::{Server, User};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

/// A server with a public and two private caches, and a Nix without configuration.
struct Desk {
    server: Server,
    admin: User,
    nix: Nix,
}

impl Desk {
    fn new() -> Self {
        let server = crate::server();
        let admin = User::admin(&server);
        for name in ["team", "other"] {
            admin.firn(&["cache", "create", name, "--private"]).ok();
        }
        let nix = Nix::new(Release::Bookworm);
        Self { server, admin, nix }
    }

    fn token(&self, caches: &str) -> String {
        let made = self
            .admin
            .json(&["token", "create", "--cache", caches, "--allow", "pull"]);
        made["token"].as_str().unwrap().to_owned()
    }

    /// `firn use ARGUMENTS` with a token.
    fn uses(&self, token: &str, arguments: &[&str]) -> Outcome {
        run(self
            .admin
            .command()
            .env("NIX_CONF_DIR", self.nix.path(""))
            .env("FIRN_TOKEN", token)
            .arg("use")
            .args(arguments))
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.nix.path(name)).unwrap_or_default()
    }
}

#[test]
fn n1_two_servers_have_keys_of_two_names() {
    let (one, other) = (crate::server(), crate::server());
    let name = |server: &Server, cache: &str| {
        let key = server.public_key(cache);
        key.split(':').next().unwrap().to_owned()
    };
    assert_ne!(name(&one, "main"), name(&other, "main"));
    let admin = User::admin(&one);
    for cache in ["acme/web", "acme-web", "cache.nixos.org"] {
        admin.firn(&["cache", "create", cache, "--public"]).ok();
    }
    assert_ne!(name(&one, "acme/web"), name(&one, "acme-web"));
    assert!(!name(&one, "cache.nixos.org").starts_with("cache.nixos.org"));
    let before = name(&one, "acme-web");
    admin.firn(&["cache", "delete", "acme-web"]).ok();
    admin
        .firn(&["cache", "create", "acme-web", "--public"])
        .ok();
    assert_ne!(name(&one, "acme-web"), before);
}

#[test]
fn n2_a_nix_conf_of_the_store_is_left_as_it_is() {
    let desk = Desk::new();
    let file = desk.nix.path("for-the-store");
    std::fs::write(&file, "sandbox = false\n").unwrap();
    let added = run(desk.nix.command("nix-store").arg("--add").arg(&file)).ok();
    let added = PathBuf::from(added.trim());
    let before = std::fs::metadata(&added).unwrap();
    std::fs::remove_file(desk.nix.path("nix.conf")).unwrap();
    std::os::unix::fs::symlink(&added, desk.nix.path("nix.conf")).unwrap();
    let said = desk.uses(&desk.server.token(), &["team"]).refused();
    assert!(said.contains("nix.settings = {"), "{said}");
    assert!(said.contains(&desk.server.public_key("team")), "{said}");
    assert!(!said.contains(&desk.server.token()), "{said}");
    let after = std::fs::metadata(&added).unwrap();
    assert_eq!(after.permissions().mode(), before.permissions().mode());
    assert_eq!(
        std::fs::read_to_string(&added).unwrap(),
        "sandbox = false\n"
    );
    assert!(!desk.nix.path("netrc").exists());
}

#[test]
fn n3_an_admins_token_does_not_go_into_netrc_and_removing_takes_all_back() {
    let desk = Desk::new();
    let before = desk.read("nix.conf");
    let admin = desk.server.token();
    let admin = admin.as_str();
    let said = desk.uses(admin, &["team"]).ok();
    assert!(said.contains("may pull from team only"), "{said}");
    assert!(!desk.read("netrc").contains(admin));
    let once = desk.read("netrc");
    desk.uses(admin, &["team"]).ok();
    assert_eq!(desk.read("netrc"), once, "a token that will do stays");
    // A second private cache of the host: one token for both.
    desk.uses(admin, &["other"]).ok();
    assert_ne!(desk.read("netrc"), once);
    desk.uses(admin, &["team"]).ok();
    desk.uses(admin, &["team", "--remove"]).ok();
    desk.uses(admin, &["other", "--remove"]).ok();
    assert_eq!(desk.read("nix.conf"), before);
    assert!(!desk.nix.path("netrc").exists());
    let tokens = desk.admin.json(&["token", "list"]);
    let good = tokens.as_array().unwrap().iter();
    let good = good.filter(|token| {
        let note = token["note"].as_str().unwrap_or_default();
        note.starts_with("firn use") && token["revoked"] == false
    });
    assert_eq!(good.count(), 0, "{tokens}");
    desk.uses(admin, &["other", "--remove"]).refused();
}

#[test]
fn n3_two_tokens_for_one_host_are_seen() {
    let desk = Desk::new();
    let (team, other) = (desk.token("team"), desk.token("other"));
    desk.uses(&team, &["team"]).ok();
    let before = desk.read("netrc");
    let said = desk.uses(&other, &["other"]).refused();
    assert!(said.contains("one token for"), "{said}");
    assert_eq!(desk.read("netrc"), before);
    assert!(!desk.read("nix.conf").contains("/other"));
    desk.uses(&desk.token("team,other"), &["other"]).ok();
}

#[test]
fn n3_entries_of_netrc_that_come_first_are_seen() {
    let desk = Desk::new();
    let team = desk.token("team");
    std::fs::write(desk.nix.path("netrc"), "default login me password x\n").unwrap();
    let said = desk.uses(&team, &["team"]).ok();
    assert!(said.contains("`default` entry"), "{said}");
    let written =
        format!("machine 127.0.0.1 login firn password {team}\ndefault login me password x\n");
    assert_eq!(desk.read("netrc"), written);
    let foreign = "machine 127.0.0.1\nlogin me password x\n";
    std::fs::write(desk.nix.path("netrc"), foreign).unwrap();
    let said = desk.uses(&team, &["team"]).refused();
    assert!(
        said.contains("has an entry for 127.0.0.1 already"),
        "{said}"
    );
    assert_eq!(desk.read("netrc"), foreign);
    // One that opens the cache is as good as ours.
    let foreign = format!("machine 127.0.0.1 login me password {team}\n");
    std::fs::write(desk.nix.path("netrc"), &foreign).unwrap();
    desk.uses(&team, &["team"]).ok();
    assert_eq!(desk.read("netrc"), foreign);
}

#[test]
fn n3_a_netrc_file_that_is_set_already_is_the_one() {
    let desk = Desk::new();
    let theirs = desk.nix.path("their-netrc");
    std::fs::write(&theirs, "machine elsewhere login me password x\n").unwrap();
    desk.nix
        .configure(&format!("netrc-file = {}", theirs.display()));
    let team = desk.token("team");
    desk.uses(&team, &["team"]).ok();
    assert!(desk.read("their-netrc").contains(&team));
    assert!(desk.read("their-netrc").contains("machine elsewhere"));
    assert_eq!(desk.read("nix.conf").matches("netrc-file").count(), 1);
    assert!(!desk.nix.path("netrc").exists());
}

#[test]
fn n3_a_configuration_that_overrides_the_block_is_seen() {
    let desk = Desk::new();
    let overridden = |setting: &str| {
        run(desk
            .admin
            .command()
            .env("NIX_CONF_DIR", desk.nix.path(""))
            .env("NIX_CONFIG", setting)
            .args(["use", "main"]))
        .refused()
    };
    let said = overridden("substituters = http://elsewhere.invalid");
    assert!(said.contains("Nix does not use it"), "{said}");
    let said = overridden("trusted-public-keys =");
    assert!(said.contains("does not trust the cache's key"), "{said}");
    let said = desk.uses(&desk.server.token(), &["main"]).ok();
    assert!(said.contains("Nix uses http://"), "{said}");
    // Another key of this name.
    let name = desk.server.public_key("main");
    let name = name.split(':').next().unwrap();
    desk.nix.configure(&format!(
        "extra-trusted-public-keys = {name}:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="
    ));
    let said = desk.uses(&desk.server.token(), &["main"]).refused();
    assert!(said.contains("one key for a name"), "{said}");
}

#[test]
fn n3_a_flake_of_a_private_cache_speaks_of_netrc() {
    let desk = Desk::new();
    let said = desk.uses(&desk.server.token(), &["team", "--flake"]).ok();
    assert!(
        said.contains("netrc") && said.contains("machine 127.0.0.1"),
        "{said}"
    );
    let said = desk.uses(&desk.server.token(), &["main", "--flake"]).ok();
    assert!(!said.contains("netrc"), "{said}");
    let said = desk.uses(&desk.server.token(), &["team", "--print"]).ok();
    assert!(!said.contains(&desk.server.token()), "{said}");
}

/// A daemon of Nix 2.8 with a configuration of its own.
struct Daemon {
    child: Child,
    folder: tempfile::TempDir,
}

impl Daemon {
    fn start() -> Self {
        program::need_root();
        let folder = tempfile::tempdir().unwrap();
        let everybody = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), everybody).unwrap();
        let conf = folder.path().join("conf");
        std::fs::create_dir(&conf).unwrap();
        let text = "experimental-features = nix-command flakes\nbuild-users-group =\nsubstituters =\ntrusted-public-keys =\n";
        std::fs::write(conf.join("nix.conf"), text).unwrap();
        let mut command = program::daemon(program::find("nix-daemon"));
        let child = Self::surroundings(folder.path(), &mut command)
            .spawn()
            .unwrap();
        let daemon = Self { child, folder };
        for _ in 0..200 {
            if daemon.folder.path().join("socket").exists() {
                return daemon;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("the daemon does not listen");
    }

    fn surroundings<'c>(folder: &Path, command: &'c mut Command) -> &'c mut Command {
        command
            .env("NIX_CONF_DIR", folder.join("conf"))
            .env("NIX_STATE_DIR", folder.join("state"))
            .env("NIX_DAEMON_SOCKET_PATH", folder.join("socket"))
    }

    /// `firn ARGUMENTS` of somebody whom the daemon does not trust, with the Nix of a release.
    fn nobody(&self, release: Release, server: &Server, arguments: &[&str]) -> Outcome {
        let home = self.folder.path().join("home");
        std::fs::create_dir_all(&home).unwrap();
        std::os::unix::fs::chown(&home, Some(65534), Some(65534)).unwrap();
        let firn = self.folder.path().join("firn");
        if !firn.exists() {
            std::fs::copy(env!("CARGO_BIN_EXE_firn"), &firn).unwrap();
        }
        let mut command = Nix::new(release).command("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(firn)
            .args(arguments);
        Self::surroundings(self.folder.path(), &mut command)
            .env_remove("NIX_CONF_DIR")
            .env("XDG_CONFIG_HOME", home.join("config"))
            .env("XDG_CACHE_HOME", home.join("cache"))
            .env("XDG_STATE_HOME", home.join("state"))
            .env("HOME", &home)
            .env("NIX_REMOTE", "daemon")
            .env("FIRN_SERVER", server.url())
            .current_dir("/");
        run(&mut command)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn n3_a_user_whom_the_daemon_does_not_trust_is_told() {
    let server = crate::server();
    let daemon = Daemon::start();
    for release in Release::ALL {
        let said = daemon.nobody(release, &server, &["use", "main"]).refused();
        assert!(said.contains("trusted-users"), "{said}");
        assert!(said.contains(&server.public_key("main")), "{said}");
        assert!(!daemon.folder.path().join("home/config/nix").exists());
        let path = "/nix/store/00c89v0sz1j42g5sg6mffiwplzccay6p-hello-1.0";
        let said = daemon
            .nobody(release, &server, &["pull", "--trust", path])
            .refused();
        assert!(said.contains("trusted-users"), "{said}");
    }
}

/// What docs/nix-use.md says of a machine that has pushed by `nix copy`, and that its mend is one.
#[test]
fn n7_a_path_that_was_copied_here_is_substituted_after_the_mend() {
    let root = firn_testkit::rigs::closure::Closure::first().root;
    for release in Release::ALL {
        let server = crate::server();
        let nix = Nix::new(release);
        nix.netrc("127.0.0.1", &server.token());
        let (url, key) = (server.cache("main"), server.public_key("main"));
        nix.copy_to(&url, &[&root]).ok();
        let said = nix
            .realise(&nix.path("one"), &url, &key, &[&root])
            .refused();
        assert!(said.contains("not signed by any of the keys"), "{said}");
        nix.configure("narinfo-cache-positive-ttl = 0");
        nix.realise(&nix.path("two"), &url, &key, &[&root]).ok();
    }
}

/// Other users of the machine reach the agent's port, and nothing behind it.
#[test]
fn s13_the_agent_serves_those_who_know_its_url() {
    let desk = Desk::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_firn"));
    for (name, value) in desk.admin.command().get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    let log = desk.nix.path("agent.log");
    let url = || {
        let agent = firn_testkit::rigs::agent::Agent::start(
            &command,
            &log,
            &["--server", &desk.server.url(), "--cache", "team"],
        );
        let status = |url: &str, host: &str| {
            run(program::command("curl").args([
                "-s",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "-H",
                host,
                url,
            ]))
            .ok()
        };
        let known = format!("{}/nix-cache-info", agent.url);
        let origin: Vec<&str> = agent.url.splitn(4, '/').collect();
        let guessed = format!("http://{}/team/nix-cache-info", origin[2]);
        assert_eq!(status(&known, "X-A: b"), "200");
        assert_eq!(status(&guessed, "X-A: b"), "404");
        assert_eq!(status(&known, "Host: rebound.example"), "421");
        let secret = origin[3].to_owned();
        agent.stop();
        secret
    };
    let secret = url();
    assert!(secret.len() > 32, "{secret}");
    assert_eq!(url(), secret, "nix.conf has it");
}

/// Credentials by standard input and by the environment reach the registry; those in arguments are warned of.
#[test]
fn s20_credentials_need_not_be_arguments() {
    let desk = Desk::new();
    let authority = desk.server.url().replace("http://", "");
    let image = format!("{authority}/team/none:1");
    let credentials = format!("x:{}", desk.server.token());
    let push = |arguments: &[&str], environment: Option<&str>, input: &str| {
        let file = desk.nix.path("input");
        std::fs::write(&file, input).unwrap();
        let mut command = desk.admin.bare_command();
        if let Some(credentials) = environment {
            command.env("FIRN_DEST_CREDS", credentials);
        }
        command
            .args([
                "image",
                "index",
                "--to",
                &format!("{authority}/team/i:1"),
                &image,
            ])
            .args(arguments);
        // `run` gives no input, and a shell does.
        let mut shell = program::command("sh");
        shell
            .args(["-c", r#"file=$0; exec "$@" < "$file""#])
            .arg(&file);
        shell.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        run(&mut shell).refused()
    };
    let warned = "every user of this machine can see";
    let anonymous = push(&[], None, "");
    assert!(anonymous.contains("401"), "{anonymous}");
    let by_input = push(&["--dest-creds", "-"], None, &format!("{credentials}\n"));
    assert!(
        !by_input.contains("401") && !by_input.contains(warned),
        "{by_input}"
    );
    let by_environment = push(&[], Some(&credentials), "");
    assert!(
        !by_environment.contains("401") && !by_environment.contains(warned),
        "{by_environment}"
    );
    let by_argument = push(&["--dest-creds", &credentials], None, "");
    assert!(by_argument.contains(warned), "{by_argument}");
}

/// A flake's output and a derivation's file, by Nix 2.8 too.
#[test]
fn n10_flakes_and_derivations_go_there_and_back() {
    let desk = Desk::new();
    let flake = desk.nix.path("flake");
    std::fs::create_dir(&flake).unwrap();
    let text = r#"{ outputs = { self }: { packages.x86_64-linux.default = derivation {
        name = "n10"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo n10 > $out" ]; }; }; }"#;
    std::fs::write(flake.join("flake.nix"), text).unwrap();
    let installable = format!("path:{}", flake.display());
    for release in Release::ALL {
        let nix = Nix::new(release);
        let firn = nix.path("firn");
        std::fs::copy(env!("CARGO_BIN_EXE_firn"), &firn).unwrap();
        let command = |arguments: &[&str]| {
            let mut command = nix.command(firn.to_str().unwrap());
            command
                .env("FIRN_SERVER", desk.server.url())
                .env("FIRN_TOKEN", desk.server.token())
                .args(arguments);
            run(&mut command)
        };
        command(&["push", "--cache", "team", &installable]).ok();
        let show = run(nix
            .command("nix")
            .args(["path-info", "--derivation", &installable]))
        .ok();
        let derivation = show.trim();
        command(&["push", "--cache", "team", derivation]).ok();
        // Into a store that has nothing.
        let store = nix.path("store");
        nix.configure(&format!("store = {}", store.display()));
        command(&["pull", "--cache", "team", "--trust", derivation]).ok();
        let pulled = store.join(derivation.trim_start_matches('/'));
        assert!(pulled.is_file(), "{}", pulled.display());
    }
}
