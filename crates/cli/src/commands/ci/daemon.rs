//! `firn ci daemon`: the loopback substituter of one job, which outlives the step that starts it.

use super::{
    args::{StateArgs, one_location},
    door::Door,
};
use crate::{
    context::Global,
    door::NixDoor,
    failure::{Failure, Outcome},
    storage::{StorageArgs, sources},
};
use firn_client::{
    ci::state::{DaemonState, StateDir, end_own_process, lead_own_session, own_pid},
    substituter::{Substituter, new_key},
};
use firn_server::loopback::Loopback;
use std::{
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

/// How often it looks whether its job is still there.
const LOOK: Duration = Duration::from_secs(5);
/// When Nix asks for an unknown path, and the store was not looked at for so long, it is looked at again: a job
/// beside this one may have built it.
const REFRESH_AFTER: Duration = Duration::from_secs(60);
/// No job is longer.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// How long its starter waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    storage: StorageArgs,
    #[command(flatten)]
    state: StateArgs,
}

pub(super) fn run(global: &Global, args: &Args) -> Outcome {
    // A step's end must not be its end; a session of its own is none of the step's.
    lead_own_session();
    let state = args.state.dir()?;
    let lock = state.lock()?;
    let location = one_location(&args.storage, None)?;
    let store = args.storage.open(&location)?;
    let requests_before = store.backend().requests();
    // Its secret half is nobody's but this process's, and ends with it.
    let key = new_key("firn-ci")?;
    let substituter = Substituter::new(sources(global, vec![store.clone()]), key)?;
    let substituter = Arc::new(substituter.with_refresh_after(REFRESH_AFTER));
    let prefix = format!("/{}", nonce()?);
    let door = Arc::new(Door {
        prefix: prefix.clone(),
        nix: NixDoor::new(&global.cache, Arc::clone(&substituter), None),
        substituter: Arc::clone(&substituter),
        store,
        requests_before,
    });
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let loopback = Loopback::start(listen, door.clone()).map_err(|error| Failure::of(&error))?;
    let signals = loopback
        .catch_signals()
        .map_err(|error| Failure::of(&error))?;
    let prefetch: Vec<String> = state.read("prefetch.json")?.unwrap_or_default();
    state.write(
        "daemon.json",
        &DaemonState {
            pid: own_pid(),
            url: format!("http://{}{prefix}/{}", loopback.address(), global.cache),
            public_key: substituter.public_key().to_string(),
        },
    )?;
    end_with_the_job(state.clone());
    substituter.prefetch(&global.cache, prefetch);
    loopback.run_until(signals);
    state.write("stats.json", &door.stats())?;
    drop(lock);
    Ok(())
}

fn nonce() -> Outcome<String> {
    // A key's bytes are as random as they come.
    let key = new_key("nonce")?.public();
    Ok(firn_formats::Sha256::of(&key.bytes).hex()[..16].to_owned())
}

/// A job that is cancelled calls nobody: its folder goes away, and with it the daemon.
fn end_with_the_job(state: StateDir) {
    let begun = Instant::now();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(LOOK);
            let ours = state
                .read::<DaemonState>("daemon.json")
                .ok()
                .flatten()
                .is_some_and(|daemon| daemon.pid == own_pid());
            if !ours || begun.elapsed() > LIFETIME {
                // To itself: the same way out as at the end of a job.
                end_own_process();
            }
        }
    });
}

/// Starts a daemon by this program's own file, and waits until it listens.
pub(super) fn start(
    global: &Global,
    storage: &StorageArgs,
    location: &str,
    state: &StateDir,
) -> Outcome<DaemonState> {
    let log = state.file("daemon.log");
    let file = std::fs::File::create(&log)?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args([
            "ci",
            "daemon",
            "--storage",
            location,
            "--cache",
            &global.cache,
            "--state",
        ])
        .arg(state.path())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file);
    if let Some(credentials) = storage.credentials() {
        // Not an argument: those are for everybody to see.
        command.env("FIRN_DEST_CREDS", credentials);
    }
    let mut child = command.spawn()?;
    wait(state, &mut child).map_err(|what| {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        let said = said.lines().next().unwrap_or_default().to_owned();
        Failure::new(format!("the substituter {what}: {said}"))
            .hint(format!("its log is {}", log.display()))
    })
}

fn wait(state: &StateDir, child: &mut Child) -> Result<DaemonState, String> {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if let Ok(Some(daemon)) = state.read::<DaemonState>("daemon.json") {
            return Ok(daemon);
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(format!("ended ({status})"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    // It is ours, and of no use.
    let _killed = child.kill();
    Err("did not listen in time".to_owned())
}
