//! Images looked at: what is in them, what a push sends again and why, what should not be there.

use firn_testkit::rigs::{
    closure::{Closure, base_name},
    program::{command, run, workspace},
    registry::Registry,
    serve::User,
};
use serde_json::Value;
use std::os::unix::fs::symlink;

fn user() -> User {
    User::alone(env!("CARGO_BIN_EXE_firn"))
}

fn array<'a>(value: &'a Value, name: &str) -> &'a Vec<Value> {
    let found = value[name].as_array();
    found.unwrap_or_else(|| panic!("no list {name:?} in {value}"))
}

fn push(user: &User, to: &str, extra: &[&str], path: &str) -> Value {
    let arguments = ["image", "push", "--to", to, "--no-paths"];
    user.json(&[&arguments, extra, &[path]].concat())
}

/// What is said beforehand is what a push does, and the two images that come of it say the same.
#[test]
fn a_diff_foretells_a_push_and_names_the_cause() {
    let registry = Registry::start();
    let to = |tag: &str| format!("{}/team/app:{tag}", registry.address());
    let (first, second) = (Closure::first(), Closure::second());
    let user = user();
    push(&user, &to("1"), &["--env", "A=1"], &first.root);

    let foretold = user.json(&["image", "diff", "--env", "A=2", &to("1"), &second.root]);
    let causes = array(&foretold, "causes");
    assert_eq!(causes[0]["what"], "changed", "{foretold:#}");
    assert_eq!(causes[0]["path"], base_name(&second.root), "{foretold:#}");
    assert_eq!(causes[0]["was"], base_name(&first.root), "{foretold:#}");
    assert_eq!(foretold["paths_new"], 1, "{foretold:#}");
    assert_eq!(foretold["config"][0]["field"], "Env.A", "{foretold:#}");
    let is_pushed = |layer: &&Value| layer["reused"] == false;
    let pushed = array(&foretold, "layers").iter().filter(is_pushed).count();

    push(
        &user,
        &to("2"),
        &["--history", &to("1"), "--env", "A=2"],
        &second.root,
    );
    let made = user.json(&["image", "diff", &to("1"), &to("2")]);
    let sent = array(&made, "layers").iter().filter(is_pushed).count();
    assert_eq!(sent, pushed, "{foretold:#}\n{made:#}");
    assert_eq!(made["layer_bytes_are"], "stored");
    assert_eq!(made["config"], foretold["config"]);
    assert_eq!(array(&made, "causes")[0]["path"], base_name(&second.root));

    let said = user.firn(&["image", "diff", &to("1"), &to("2")]).ok();
    assert!(said.contains("app-0.2.0 changed (was app-0.1.0)"), "{said}");
    let same = user.json(&["image", "diff", &to("2"), &to("2")]);
    assert_eq!(
        (&same["bytes_pushed"], &same["causes"]),
        (&0.into(), &Value::Array(Vec::new()))
    );
}

/// Files are compared as images in registries are, and so are plans with plans.
#[test]
fn archives_and_plans_are_compared_too() {
    let user = user();
    let (first, second) = (Closure::first(), Closure::second());
    for (name, closure, more) in [("1.tar", &first, "zstd"), ("gzip.tar", &first, "gzip")] {
        let built = ["image", "build", "--compression", more, "--output", name];
        user.firn(&[&built[..], &["--format", "oci-archive", &closure.root]].concat())
            .ok();
    }
    let recompressed = user.json(&["image", "diff", "1.tar", "gzip.tar"]);
    for layer in array(&recompressed, "layers") {
        assert_eq!(
            layer["reasons"][0]["what"], "recompressed",
            "{recompressed:#}"
        );
    }
    let planned = user.json(&["image", "diff", "1.tar", &second.root]);
    let plans = user.json(&["image", "diff", &first.root, &second.root]);
    assert_eq!(planned["causes"], plans["causes"]);
    let refused = user.firn(&["image", "diff", "1.tar", "gzip.tar", &second.root]);
    assert!(refused.refused().contains("hint: firn image diff"));
}

#[test]
fn what_nothing_starts_is_found_and_can_be_denied() {
    let closure = Closure::first();
    let user = user();
    let hello = closure.path_of("hello-2");
    let program = closure.hello();
    let start = [
        "image",
        "lint",
        "--entrypoint",
        &program,
        &hello,
        &closure.root,
    ];
    let found = user.json(&start);
    let lint = |extra: &[&str]| user.firn(&[&start, extra].concat());
    let of = |check: &str| -> Vec<&Value> {
        let all = array(&found, "findings").iter();
        all.filter(|finding| finding["check"] == check).collect()
    };
    let unused = of("unused");
    assert_eq!(unused.len(), 1, "{found:#}");
    assert_eq!(unused[0]["path"], base_name(&closure.root));
    assert!(unused[0]["bytes"].as_u64() > Some(2_000_000), "{found:#}");
    // Debian's packages bring their changelogs; the chain says who brought libc's.
    let docs = of("docs");
    let libc = docs
        .iter()
        .find(|doc| doc["path"].as_str().unwrap().contains("-libc6-"));
    let via = array(libc.unwrap(), "via");
    assert_eq!(via.first().unwrap(), base_name(&hello), "{found:#}");

    let refused = lint(&["--deny", "unused"]).refused();
    assert!(refused.contains("error: 1 finding denied"), "{refused}");
    lint(&["--deny", "unused", "--allow", "app"]).ok();
    lint(&["--deny", "headers"]).ok();
    let unknown = lint(&["--deny", "x"]).refused();
    assert!(unknown.contains("two-versions"), "{unknown}");
}

/// An image that was made is judged by what it says of itself.
#[test]
fn an_image_is_judged_by_its_own_config() {
    let closure = Closure::first();
    let user = user();
    let hello = closure.hello();
    let built = [
        "image",
        "build",
        "--output",
        "app.tar",
        "--entrypoint",
        &hello,
    ];
    user.firn(&[&built[..], &[closure.root.as_str()]].concat())
        .ok();
    let found = user.json(&["image", "lint", "app.tar"]);
    let first = &array(&found, "findings")[0];
    assert_eq!(
        (&first["check"], &first["path"]),
        (&"unused".into(), &base_name(&closure.root).into())
    );
}

#[test]
fn tables_and_drawings_know_the_history() {
    let registry = Registry::start();
    let to = format!("{}/team/app:1", registry.address());
    let (first, second) = (Closure::first(), Closure::second());
    let user = user();
    for closure in [&first, &second, &first] {
        push(&user, &to, &[], &closure.root);
    }
    let shown = user.json(&["image", "inspect", "--svg", "a.svg", "--with", &to, &to]);
    let layers = array(&shown, "layers");
    let of = |name: &str| {
        let has = |layer: &&Value| {
            array(layer, "paths")
                .iter()
                .any(|p| p.as_str().unwrap().contains(name))
        };
        layers.iter().find(has).unwrap()
    };
    assert_eq!(of("-app-")["changed"], 2, "{shown:#}");
    assert_eq!(of("-libc6-")["changed"], 0, "{shown:#}");
    assert_eq!(of("-app-")["revisions"], 2, "{shown:#}");
    assert_eq!(of("-app-")["shared_with"][0], to.as_str());
    let table = user.firn(&["image", "inspect", &to]).ok();
    assert!(
        table.contains("2 of 2") && table.contains("0 of 2"),
        "{table}"
    );

    user.firn(&["image", "plan", "--svg", "b.svg", &first.root])
        .ok();
    user.firn(&["image", "plan", "--svg", "c.svg", &first.root])
        .ok();
    let file = |name: &str| user.home().join(name);
    assert_eq!(
        std::fs::read(file("b.svg")).unwrap(),
        std::fs::read(file("c.svg")).unwrap()
    );
    for name in ["a.svg", "b.svg"] {
        let check = "import sys, xml.dom.minidom as m; d = m.parse(sys.argv[1]).documentElement; \
                     print(d.tagName, len(d.getElementsByTagName('rect')), len(d.getElementsByTagName('text')))";
        let read = run(command("python3").args(["-c", check]).arg(file(name))).ok();
        assert!(read.starts_with("svg "), "{read}");
        let drawn = std::fs::read_to_string(file(name)).unwrap();
        assert!(
            drawn.contains("hello-2") && drawn.contains("libc6-"),
            "{drawn}"
        );
    }
    assert!(
        std::fs::read_to_string(file("a.svg"))
            .unwrap()
            .contains("What changed in the last 2 revisions")
    );
}

/// The commands of docs/image-tools.md, in their order, with a registry of one's own.
#[test]
fn the_documented_commands_run() {
    let registry = Registry::start();
    let user = user();
    let (first, second) = (Closure::first(), Closure::second());
    for (tag, closure) in [("1", &first), ("2", &second)] {
        let to = format!("{}/team/app:{tag}", registry.address());
        push(&user, &to, &[], &closure.root);
    }
    symlink(&second.root, user.home().join("result")).unwrap();
    let text = std::fs::read_to_string(workspace().join("docs/image-tools.md")).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("$ firn "));
    let mut count = 0;
    for line in lines {
        let line = line.replace("127.0.0.1:5000", registry.address());
        let words: Vec<&str> = line.split_whitespace().collect();
        user.firn(&words).ok();
        count += 1;
    }
    assert!(count >= 8, "{count} commands");
}
