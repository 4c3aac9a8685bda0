//! A server's NARs are put together from what the machine has: by `firn agent --server` and by `firn pull`.

use crate::ci::project::{HALF_BYTES, Project};
use firn_testkit::rigs::agent::Agent;
use firn_testkit::rigs::machine::Machine;
use firn_testkit::rigs::proxy::Proxy;
use firn_testkit::rigs::serve::Server;
use serde_json::Value;
use std::process::Command;

const FIRN: &str = env!("CARGO_BIN_EXE_firn");

/// Three versions of a project, and a server that has them: the first, one after a change of what all is built on,
/// and then one with one package changed.
struct Team {
    server: Server,
    project: Project,
    first: String,
    bumped: String,
    changed: String,
}

impl Team {
    fn new() -> Self {
        let server = crate::server();
        let project = Project::new();
        let build = |project: &Project| {
            let mut machine = project.machine();
            machine.set("FIRN_TOKEN", server.token());
            let root = machine
                .step("nix-build", &["--no-out-link", "-A", "app"])
                .ok();
            let push = ["push", "--server", &server.url(), &root];
            machine.step(FIRN, &push).ok();
            root
        };
        let first = build(&project);
        project.bump("2");
        let bumped = build(&project);
        project.change("pak3", "2");
        let changed = build(&project);
        Self {
            server,
            project,
            first,
            bumped,
            changed,
        }
    }

    fn desk(&self) -> Machine {
        let mut desk = self.project.machine();
        desk.set("FIRN_TOKEN", self.server.token());
        desk
    }

    /// Fetches a version through an agent that has seen nothing; gives what it counted.
    fn through_agent(&self, desk: &Machine, server: &str, root: &str) -> Value {
        let log = desk.path("temp").join("agent.log");
        let agent = Agent::start(
            &untimed(&desk.command(FIRN, &[])),
            &log,
            &["--server", server],
        );
        let realise = [
            "--realise",
            root,
            "--option",
            "substituters",
            &agent.url,
            "--option",
            "trusted-public-keys",
            &agent.keys,
        ];
        desk.step("nix-store", &realise).ok();
        desk.step("nix-store", &["--verify", "--check-contents"])
            .ok();
        agent.stop()
    }
}

/// Without the limit of time that a step has: it would be the one to be ended, and the agent would outlive it.
fn untimed(step: &Command) -> Command {
    let mut arguments = step.get_args().skip(2);
    let mut command = Command::new(arguments.next().unwrap());
    command.args(arguments);
    for (name, value) in step.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

#[track_caller]
fn number(report: &Value, name: &str) -> u64 {
    let number = report[name].as_u64();
    number.unwrap_or_else(|| panic!("no {name} in {report}"))
}

#[test]
fn an_agent_fetches_of_a_servers_paths_what_is_new() {
    let team = Team::new();
    let (desk, url) = (team.desk(), team.server.url());
    let cold = team.through_agent(&desk, &url, &team.first);
    assert_eq!(number(&cold, "nars"), 6, "{cold}");
    let whole = number(&cold, "bytes_fetched");
    assert!(whole > 8 * HALF_BYTES, "{cold}");

    let bumped = team.through_agent(&desk, &url, &team.bumped);
    assert_eq!(
        number(&bumped, "nars"),
        5,
        "all but what is below: {bumped}"
    );
    assert!(number(&bumped, "bytes_fetched") < whole / 100, "{bumped}");

    let changed = team.through_agent(&desk, &url, &team.changed);
    assert_eq!(number(&changed, "nars"), 2, "{changed}");
    let fetched = number(&changed, "bytes_fetched");
    assert!(
        (HALF_BYTES..HALF_BYTES * 11 / 10).contains(&fetched),
        "{changed}"
    );
    println!("all {whole}, bumped {bumped}, changed {changed}");
}

/// An older server does not tell how NARs are stored, and one that tells it wrongly is not believed: whole NARs then.
#[test]
fn whole_nars_come_where_chunks_cannot() {
    let team = Team::new();
    let desk = team.desk();
    let older = Proxy::without(team.server.address(), "/api/v1/nars/");
    team.through_agent(&desk, &older.url(), &team.first);
    let bumped = team.through_agent(&desk, &older.url(), &team.bumped);
    assert!(
        number(&bumped, "bytes_fetched") > 6 * HALF_BYTES,
        "{bumped}"
    );

    let liar = Proxy::before(team.server.address(), |path, mut body| {
        if path.starts_with("/api/v1/nars/") {
            // In the id of the last chunk: only what is fetched for it can tell.
            let at = body.len() - 20;
            body[at] ^= 1;
        }
        body
    });
    let desk = team.desk();
    team.through_agent(&desk, &team.server.url(), &team.first);
    let bumped = team.through_agent(&desk, &liar.url(), &team.bumped);
    assert_eq!(number(&bumped, "nars"), 5, "{bumped}");
}

#[test]
fn pull_fetches_of_a_servers_paths_what_is_new() {
    let team = Team::new();
    let (desk, url) = (team.desk(), team.server.url());
    let pull = |root: &str, more: &[&str]| -> Value {
        let words = ["pull", "--json", "--server", &url, "--trust", root];
        let said = desk.step(FIRN, &[&words, more].concat()).ok();
        serde_json::from_str(&said).unwrap()
    };
    let cold = pull(&team.first, &[]);
    let whole = number(&cold, "bytes_received");
    assert!(whole > 8 * HALF_BYTES, "{cold}");
    let bumped = pull(&team.bumped, &[]);
    assert_eq!(number(&bumped, "paths_fetched"), 5, "{bumped}");
    assert!(number(&bumped, "bytes_received") < whole / 100, "{bumped}");
    // Into a folder, from what the store has.
    let changed = pull(&team.changed, &["--to", "root"]);
    assert_eq!(number(&changed, "paths_fetched"), 6, "{changed}");
    let received = number(&changed, "bytes_received");
    assert!(received < HALF_BYTES * 11 / 10, "{changed}");
    // Then Nix judges it.
    pull(&team.changed, &[]);
    desk.step(
        "diff",
        &["-r", &format!("root{}", team.changed), &team.changed],
    )
    .ok();
    desk.step("nix-store", &["--verify", "--check-contents"])
        .ok();
}
