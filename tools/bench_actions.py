"""The Actions cache: a folder of store paths saved and restored by the real `@actions/cache`, with five successive keys;
the peer is the least server that the client accepts, which copies what it gets to a file."""
import json, os, pathlib, resource, shutil, subprocess, sys, time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "ci-peers"))
from actions_store import ActionsStore

NODE = pathlib.Path(os.environ.get("FIRN_NODE_MODULES", HERE.parent / ".cache/node/node_modules"))
TICKS = os.sysconf("SC_CLK_TCK")
MB = 1e6


class Side:
    """A server and what a job is told of it."""

    def __init__(self, url, token, seconds_used, stored):
        self.url, self.token, self.seconds_used, self.stored = url, token, seconds_used, stored

    def call(self, what, key, at, runner):
        """Seconds, and processor seconds of client and server together."""
        env = {"PATH": os.environ["PATH"], "HOME": str(runner), "RUNNER_TEMP": str(runner), "GITHUB_WORKSPACE": str(at),
               "ACTIONS_CACHE_MODULE": str(NODE / "@actions/cache/lib/cache.js"),
               "ACTIONS_CACHE_URL": f"{self.url}/", "ACTIONS_RUNTIME_TOKEN": self.token}
        usage = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
        os.sync()  # what was written before is not for this one to wait for
        server, client = self.seconds_used(), usage()
        done = subprocess.run(["node", HERE / "ci-peers/actions-cache.mjs", what, key, "none-", "store"], env=env, cwd=at,
                              text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if done.returncode:
            sys.exit(f"@actions/cache failed to {what}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        report = json.loads(done.stderr.strip().splitlines()[-1])
        if what == "restore" and report["result"] != key:
            sys.exit(f"@actions/cache restored {report['result']}, not {key}:\n{done.stdout[-2000:]}")
        return report["seconds"], usage() - client + self.seconds_used() - server


def processor_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def copy(paths, at):
    store = at / "store"
    store.mkdir(parents=True)
    subprocess.run(["cp", "-a", *paths, store], check=True)
    return at


def measure(runs, work, make_firn, revisions, Row, size_of, paths_of, in_turns):
    """`revisions`: (what changed, root of a closure), in their order."""
    seconds, used, stored, restored, restored_used = ({} for _ in range(5))
    note = lambda table, name, key, value: table.setdefault(key, {}).setdefault(name, []).append(value)
    size = 0
    for turn in range(runs):
        archives = work / "archives"
        shutil.rmtree(archives, ignore_errors=True)
        archives.mkdir()
        peer = ActionsStore(archives)
        with make_firn() as server:
            token = server.run("token", "create", "--actions-repo", "acme/app", "--scope", "main")["token"]
            sides = {"firn": Side(server.url, token, lambda: processor_seconds(server.child.pid),
                                  lambda: size_of(server.data)),
                     "peer": Side(f"http://127.0.0.1:{peer.port}", "bench", time.process_time, peer.stored)}
            for key, (_, root) in enumerate(revisions):
                at = copy(paths_of(root), work / "job")
                size = size or size_of(at)
                for name in in_turns(turn, "peer", "firn"):
                    side, before = sides[name], sides[name].stored()
                    runner = work / "runner"
                    runner.mkdir()
                    took, cpu = side.call("save", f"nix-{key}", at, runner)
                    note(seconds, name, key, took), note(used, name, key, cpu)
                    note(stored, name, key, (side.stored() - before) / MB)
                    note(stored, name, "all", side.stored() / MB)
                    shutil.rmtree(runner)
                if key in (0, len(revisions) - 1):
                    for name in in_turns(turn, "peer", "firn"):
                        other, runner = work / "restored", work / "runner"
                        other.mkdir(), runner.mkdir()
                        took, cpu = sides[name].call("restore", f"nix-{key}", other, runner)
                        note(restored, name, key, took), note(restored_used, name, key, cpu)
                        if turn == 0:
                            subprocess.run(["diff", "-r", "--no-dereference", at, other], check=True)
                        for folder in (other, runner):
                            subprocess.run(["chmod", "-R", "u+w", folder], check=True)
                            shutil.rmtree(folder)
                subprocess.run(["chmod", "-R", "u+w", at], check=True)
                shutil.rmtree(at)
        peer.stop()
    whole = f"actions, {size / MB:,.0f} MB of store paths"
    name = "the same client, archives copied to files"
    row = lambda what, unit, table, key, target=None: Row(f"{whole}: {what}", unit, table[key]["firn"],
                                                          table[key]["peer"], name, target)
    last = len(revisions) - 1
    for key in (0, last):
        row(f"save, {revisions[key][0]}", "s", seconds, key)
        row(f"save, {revisions[key][0]}, processor time of client and server", "s", used, key)
    for key in (0, last):
        row(f"restore, {revisions[key][0]}", "s", restored, key)
        row(f"restore, {revisions[key][0]}, processor time of client and server", "s", restored_used, key)
    for key, (what, _) in enumerate(revisions):
        row(f"key {key + 1}, {what}, adds", "MB", stored, key, "≤ 0.1 × the first" if key else None)
    for side in stored["all"].values():
        side[:] = side[last::len(revisions)]
    row("five keys, stored", "MB", stored, "all")
