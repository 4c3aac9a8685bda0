//! The Nix library: images as flake outputs, evaluated, built and pushed by Nix of both releases, without nixpkgs.

use firn_testkit::rigs::{
    Release,
    closure::Closure,
    docker::Docker,
    nix::Nix,
    podman::Podman,
    program::{self, Outcome, run, workspace},
    serve::{Server, User},
    skopeo,
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const GREETING: &str = "Hello, world!";

/// A flake of somebody's that uses Firn's, beside a copy of that.
struct Project {
    nix: Nix,
    closure: Closure,
}

impl Project {
    fn new(release: Release) -> Self {
        let project = Self {
            nix: Nix::new(release),
            closure: Closure::first(),
        };
        let firn = project.nix.path("firn");
        fs::create_dir_all(firn.join("nix")).unwrap();
        fs::copy(workspace().join("flake.nix"), firn.join("flake.nix")).unwrap();
        for entry in fs::read_dir(workspace().join("nix")).unwrap().flatten() {
            fs::copy(entry.path(), firn.join("nix").join(entry.file_name())).unwrap();
        }
        // Debian 13's root sees the temporary folder, and not where the binary lies.
        fs::copy(env!("CARGO_BIN_EXE_firn"), project.binary()).unwrap();
        fs::create_dir(project.nix.path("project")).unwrap();
        fs::write(project.nix.path("project/flake.nix"), project.flake()).unwrap();
        project
    }

    fn binary(&self) -> PathBuf {
        self.nix.path("firn-binary")
    }

    fn flake(&self) -> String {
        format!(
            r#"{{
  inputs.firn.url = "path:{firn}";
  outputs = {{ self, firn }}: {{
    packages.x86_64-linux.app = (firn.lib.new {{ system = "x86_64-linux"; firn = "{binary}"; }}).buildImage {{
      name = "app";
      tag = "1";
      contents = [ (builtins.storePath "{root}") ];
      config.Entrypoint = [ "{hello}" ];
      config.Env = [ "GREETING=it's \"quoted\"" ];
      maxLayers = 8;
    }};
  }};
}}"#,
            firn = self.nix.path("firn").display(),
            binary = self.binary().display(),
            root = self.closure.root,
            hello = self.closure.hello(),
        )
    }

    /// `nix VERB [--impure] ./project#ATTRIBUTE MORE`.
    fn nix(&self, verb: &str, attribute: &str, more: &[&str]) -> Outcome {
        run(self.nix_command(verb, attribute).args(more))
    }

    fn nix_command(&self, verb: &str, attribute: &str) -> Command {
        let installable = format!("path:{}#{attribute}", self.nix.path("project").display());
        let mut command = self.nix.command("nix");
        command.args([verb, "--impure", &installable]);
        command
    }

    fn build(&self, attribute: &str) -> String {
        let said = self.nix("build", attribute, &["--no-link", "--json"]).ok();
        let built: Value = serde_json::from_str(&said).unwrap();
        built[0]["outputs"]["out"].as_str().unwrap().to_owned()
    }

    /// Builds a program and runs it on this machine.
    fn run(&self, attribute: &str, program: &str, path: &str, arguments: &[&str]) -> Outcome {
        let program = PathBuf::from(self.build(attribute))
            .join("bin")
            .join(program);
        run(program::limited(&program)
            .env("PATH", path)
            .env("HOME", self.nix.path("home"))
            .env("XDG_CACHE_HOME", self.nix.path("cache"))
            .args(arguments))
    }

    fn eval(&self, expression: &str) -> Outcome {
        let library = format!("let firn = import {}/nix {{ }}; in ", workspace().display());
        run(self
            .nix
            .command("nix-instantiate")
            .args(["--eval", "--strict", "--json", "-E"])
            .arg(library + expression))
    }
}

/// What lies in a folder comes before the machine's programs.
fn path_with(folder: &Path) -> String {
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap())
}

/// As the second seed's workflow does it.
#[test]
fn nix_run_pushes_to_a_registry_with_credentials() {
    let server: Server = crate::server();
    for release in Release::ALL {
        let project = Project::new(release);
        let to = format!("{}/main/app:{release:?}", server.address()).to_lowercase();
        let credentials = format!("token:{}", server.token());
        let push = ["--", "--dest-creds", &credentials, "--no-paths", &to];
        project.nix("run", "app.copyToRegistry", &push).ok();
        let podman = Podman::new();
        podman.pull(&to, None).ok();
        assert_eq!(podman.run(&to, &[]).ok(), "Hello, world!", "{release:?}");
        let refused = project.nix("run", "app.copyToRegistry", &["--", &to, &to]);
        assert!(refused.refused().contains("are two places"));
    }
}

#[test]
fn programs_load_into_docker() {
    for release in Release::ALL {
        let project = Project::new(release);
        let docker = Docker::start(release);
        let shims = tempfile::tempdir().unwrap();
        docker.shim(shims.path());
        let path = path_with(shims.path());
        let load = |arguments: &[&str]| {
            let program = "copy-to-docker-daemon";
            project.run("app.copyToDockerDaemon", program, &path, arguments)
        };
        load(&[]).ok();
        assert_eq!(docker.run("app:1", &[]).ok(), GREETING, "{release:?}");
        load(&["--cmd", "--traditional", "greeter:2"]).ok();
        assert_eq!(docker.run("greeter:2", &[]).ok(), "hello, world");
        let place = ["docker-daemon:greeter:3"];
        project.run("app.copyTo", "copy-to", &path, &place).ok();
        assert_eq!(docker.run("greeter:3", &[]).ok(), GREETING, "{release:?}");
    }
}

#[test]
fn programs_load_into_podman() {
    for release in Release::ALL {
        let project = Project::new(release);
        let podman = Podman::new();
        let shims = tempfile::tempdir().unwrap();
        podman.shim(shims.path());
        let path = path_with(shims.path());
        let load = |arguments: &[&str]| {
            let program = "copy-to-podman";
            project.run("app.copyToPodman", program, &path, arguments)
        };
        load(&[]).ok();
        assert_eq!(podman.run("localhost/app:1", &[]).ok(), GREETING);
        let environment = podman.inspect("localhost/app:1", "{{.Config.Env}}").ok();
        assert!(environment.contains("GREETING=it's \"quoted\""));
        let said = load(&["--json", "--user", "1000", "localhost/greeter:2"]).ok();
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(said["image"], "localhost/greeter:2");
        assert_eq!(podman.run("localhost/greeter:2", &[]).ok(), GREETING);
        let user = podman.inspect("localhost/greeter:2", "{{.Config.User}}");
        assert_eq!(user.ok(), "1000");
        let place = ["containers-storage:localhost/greeter:3"];
        project.run("app.copyTo", "copy-to", &path, &place).ok();
        assert_eq!(podman.run("localhost/greeter:3", &[]).ok(), GREETING);
        let refused = project.run("app.copyToPodman", "copy-to-podman", "/nowhere", &[]);
        assert!(refused.refused().contains("`podman` is not in PATH"));
    }
}

/// Literally by `nix run`; Debian 13's is in another root than the machine's podman.
#[test]
fn nix_run_loads_into_podman() {
    let project = Project::new(Release::Bookworm);
    let podman = Podman::new();
    let shims = tempfile::tempdir().unwrap();
    podman.shim(shims.path());
    let mut command = project.nix_command("run", "app.copyToPodman");
    run(command.env("PATH", path_with(shims.path()))).ok();
    assert_eq!(podman.run("localhost/app:1", &[]).ok(), GREETING);
}

/// Whether an option has a value decides what is the place, and the programs have to know it of each.
#[test]
fn every_option_of_the_binary_is_passed_on() {
    let project = Project::new(Release::Bookworm);
    let echo = project.nix.path("echo");
    let folder = echo.parent().unwrap();
    program::shim(folder, "echo", Command::new("printf").arg("<%s>"));
    let expression = format!(
        "(import {}/nix {{ firn = \"{}\"; }}).buildImage {{ name = \"a\"; }}",
        workspace().display(),
        echo.display()
    );
    for (command, attribute, program) in [
        ("push", "copyToRegistry", "copy-to-registry"),
        ("load", "copyToDockerDaemon", "copy-to-docker-daemon"),
        ("load", "copyToPodman", "copy-to-podman"),
        ("build", "toArchive", "to-archive"),
    ] {
        let mut build = project.nix.command("nix-build");
        build.args(["--no-out-link", "-A", attribute, "-E", &expression]);
        let file = Path::new(&run(&mut build).ok()).join("bin").join(program);
        let say = |arguments: &[&str]| run(program::limited(&file).args(arguments)).ok();
        let plain = say(&["place"]);
        assert!(plain.contains("<place>"), "{plain}");
        for option in options(command) {
            let passed = format!("{plain}<{}>", option.join("><"));
            let option: Vec<&str> = option.iter().map(String::as_str).collect();
            assert_eq!(say(&[&option[..], &["place"]].concat()), passed);
            assert_eq!(say(&[&["place"], &option[..]].concat()), passed);
        }
    }
}

/// The options of `firn image COMMAND`, each with a value if it has one.
fn options(command: &str) -> Vec<Vec<String>> {
    let help = ["image", command, "--help"];
    let help = User::alone(env!("CARGO_BIN_EXE_firn")).firn(&help).ok();
    let option = |line: &str| {
        let mut words = line.split_whitespace().filter(|word| !word.ends_with(','));
        let name = words.next().filter(|name| name.starts_with("--"))?;
        let value = words.next().filter(|value| value.starts_with('<'));
        let words = std::iter::once(name).chain(value.map(|_| "value"));
        Some(words.map(str::to_owned).collect())
    };
    let options: Vec<_> = help.lines().filter_map(option).collect();
    assert!(options.len() > 30, "{help}");
    options
}

#[test]
fn the_result_is_a_spec_with_its_closure() {
    let mut specs = Vec::new();
    for release in Release::ALL {
        let project = Project::new(release);
        let file = project.build("app");
        let text = fs::read_to_string(&file).unwrap();
        let spec: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(spec["name"], "app");
        assert_eq!(spec["config"]["Env"][0], "GREETING=it's \"quoted\"");
        let closure = spec["closure"].as_array().unwrap();
        for path in &project.closure.paths {
            let known = closure.iter().find(|info| info["path"] == path.as_str());
            assert!(known.unwrap()["narSize"].as_u64() > Some(0), "{path}");
        }
        // What it says suffices: there is no database of Nix's.
        let user = User::alone(env!("CARGO_BIN_EXE_firn"));
        let mut plan = user.command();
        plan.args(["image", "plan", "--json", "--spec", &file])
            .env("NIX_STATE_DIR", user.home());
        let plan: Value = serde_json::from_str(&run(&mut plan).ok()).unwrap();
        assert_eq!(plan["paths_total"], project.closure.paths.len(), "{plan:#}");
        specs.push(text);
    }
    let spec = |text: &String| text.split(",\"closure\"").next().unwrap().to_owned();
    assert_eq!(spec(&specs[0]), spec(&specs[1]));
}

#[test]
fn archives_are_written_and_built() {
    for release in Release::ALL {
        let project = Project::new(release);
        let written = project.nix.path("app.tar");
        let file = written.display().to_string();
        project.nix("run", "app.toArchive", &["--", &file]).ok();
        let place = format!("docker-archive:{}", project.nix.path("too.tar").display());
        project.nix("run", "app.copyTo", &["--", &place]).ok();
        let built = project.build("app.archive");
        let read = |file: &str| {
            let folder = tempfile::tempdir().unwrap();
            let layout = format!("oci:{}:app", folder.path().display());
            skopeo::copy(release, &[], &format!("docker-archive:{file}"), &layout).ok();
            fs::read_to_string(folder.path().join("index.json")).unwrap()
        };
        assert_eq!(read(&file), read(&built), "{release:?}");
        assert_eq!(
            fs::read(&file).unwrap(),
            fs::read(&built).unwrap(),
            "{release:?}"
        );
    }
}

/// Arguments of dockerTools and nix2container mean what they mean there.
#[test]
fn arguments_of_other_libraries_are_renamed() {
    let project = Project::new(Release::Bookworm);
    let of = |arguments: &str| {
        let spec = project.eval(&format!(
            "builtins.fromJSON (firn.buildImage {{ name = \"a\"; {arguments} }}).spec.conf.text"
        ));
        serde_json::from_str::<Value>(&spec.ok()).unwrap()
    };
    let spec = of(
        r#"arch = "arm64"; initializeNixDatabase = true; compressor = "gz"; contents = "/nix/store/x"; tag = null;
           layers = [ (firn.buildLayer { deps = [ "/nix/store/y" ]; maxLayers = 2; }) ]; diskSize = 9; created = "now";
           fromImage = firn.pullImage { imageName = "debian"; imageDigest = "sha256:0"; sha256 = "x"; };"#,
    );
    assert_eq!(
        spec,
        serde_json::json!({
            "version": 1, "name": "a", "tag": "latest", "architecture": "arm64", "includeNixDB": true, "compression": "gzip",
            "contents": ["/nix/store/x"], "layers": [{"deps": ["/nix/store/y"], "maxLayers": 2}], "created": "now",
            "fromImage": "debian@sha256:0",
        })
    );
    let refused =
        project.eval(r#"(firn.buildImage { name = "a"; runAsRoot = "x"; }).spec.conf.text"#);
    assert!(refused.refused().contains("runAsRoot runs commands"));
    let name = project.eval(r#"(firn.buildImage { name = "a"; passthru.x = 1; }).imageTag"#);
    assert_eq!(name.ok(), "\"latest\"");
}

/// With nixpkgs its shell and its coreutils are used; without flakes too.
#[test]
fn nixpkgs_is_used_where_it_is_given() {
    let project = Project::new(Release::Bookworm);
    let expression = format!(
        "let pkgs = {{ stdenv.hostPlatform.system = builtins.currentSystem; runtimeShell = \"/bin/bash\"; coreutils = \"/usr\"; }}; \
         in (import {}/nix {{ inherit pkgs; firn = \"/x/firn\"; }}).buildImage {{ name = \"ghcr.io/acme/app\"; }}",
        workspace().display()
    );
    let built = run(project.nix.command("nix-build").args([
        "--no-out-link",
        "-A",
        "copyToRegistry",
        "-E",
        &expression,
    ]))
    .ok();
    let script = fs::read_to_string(PathBuf::from(built).join("bin/copy-to-registry")).unwrap();
    assert!(script.starts_with("#!/bin/bash\n"), "{script}");
    assert!(
        script.contains("exec '/x/firn' image push --spec /nix/store/"),
        "{script}"
    );
    assert!(
        script.contains("image='ghcr.io/acme/app:latest'"),
        "{script}"
    );
}
