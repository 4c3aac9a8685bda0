"""The Actions cache: a folder of store paths saved and restored by the real `@actions/cache`, with five successive keys.

The peers are the cache server of `act`, and the least server that the client accepts, which copies what it gets to a file.
"""
import contextlib, json, os, pathlib, re, shutil, statistics, subprocess, sys, time
import bench_pages

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "ci-peers"))
from actions_store import ActionsStore

CACHE = HERE.parent / ".cache"
NODE = pathlib.Path(os.environ.get("FIRN_NODE_MODULES", CACHE / "node/node_modules"))
ACT = CACHE / "tools/bin/act-cache"
MB = 1e6
SIDES = ("firn", "act", "copy")
UNITS = {"save": "s", "save, processor": "s", "restore": "s", "restore, processor": "s", "stored": "MB"}


class Side:
    """A server and what a job is told of it."""

    def __init__(self, url, token, seconds_used, stored):
        self.url, self.token, self.seconds_used, self.stored = url, token, seconds_used, stored

    def call(self, what, key, at, runner):
        """Seconds, and processor seconds of the server."""
        # Without ACTIONS_CACHE_SERVICE_V2 the client speaks version 1.
        env = {"PATH": os.environ["PATH"], "HOME": str(runner), "RUNNER_TEMP": str(runner), "GITHUB_WORKSPACE": str(at),
               "ACTIONS_CACHE_MODULE": str(NODE / "@actions/cache/lib/cache.js"),
               "ACTIONS_CACHE_URL": f"{self.url}/", "ACTIONS_RUNTIME_TOKEN": self.token}
        os.sync()  # what was written before is not for this one to wait for
        used = self.seconds_used()
        done = subprocess.run(["node", HERE / "ci-peers/actions-cache.mjs", what, key, "none-", "store"], env=env, cwd=at,
                              text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        report = {"result": None} if done.returncode else json.loads(done.stderr.strip().splitlines()[-1])
        # A save that failed is a warning and an id below zero.
        if not (report["result"] == key if what == "restore" else (report["result"] or 0) > 0):
            sys.exit(f"@actions/cache failed to {what} {key}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return report["seconds"], self.seconds_used() - used


def processor_seconds(pid):
    # What clock_getcpuclockid(3) gives for the process; /proc counts in hundredths, more than some restores need.
    return time.clock_gettime(~pid << 3 | 2)


@contextlib.contextmanager
def act_cache(folder):
    """The process of act's cache server, and its address."""
    if not ACT.exists():
        sys.exit(f"error: there is no {ACT.name}\nhint: run: tools/setup")
    with subprocess.Popen([ACT, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        url = child.stdout.readline().strip()
        if not url:
            sys.exit(f"{ACT.name} did not start")
        yield child, url


@contextlib.contextmanager
def servers(work, make_firn, size_of):
    act, archives = emptied(work / "act"), emptied(work / "archives")
    copies = ActionsStore(archives)
    try:
        with act_cache(act) as (child, url), make_firn() as firn:
            token = firn.run("token", "create", "--actions-repo", "acme/app", "--scope", "main")["token"]
            yield {"firn": Side(firn.url, token, lambda: processor_seconds(firn.child.pid), lambda: size_of(firn.data)),
                   "act": Side(url, "bench", lambda: processor_seconds(child.pid), lambda: size_of(act)),
                   # A thread of this process, which does nothing else meanwhile.
                   "copy": Side(f"http://127.0.0.1:{copies.port}", "bench", time.process_time, copies.stored)}
    finally:
        copies.stop()


def remove(folder):
    if folder.exists():
        subprocess.run(["chmod", "-R", "u+w", folder], check=True)
        shutil.rmtree(folder)


def emptied(folder):
    remove(folder)
    folder.mkdir()
    return folder


def copy(paths, at):
    store = emptied(at) / "store"
    store.mkdir()
    subprocess.run(["cp", "-a", *paths, store], check=True)
    return at


class Measured:
    """Figures by key, what of it, and side, one of each run."""

    def __init__(self, keys):
        self.keys, self.figures, self.folder = keys, {}, 0

    def note(self, key, what, side, value):
        self.figures.setdefault((key, what), {}).setdefault(side, []).append(value)
        print(f"  {key + 1}, {self.keys[key]}: {what}, {side}: {value:.3g} {UNITS[what]}", flush=True)


def measure(runs, work, make_firn, revisions, size_of, paths_of):
    """`revisions`: (what changed, root of a closure), in their order."""
    measured = Measured([what for what, _ in revisions])
    for turn in range(runs):
        order = [SIDES[(turn + place) % len(SIDES)] for place in range(len(SIDES))]
        with servers(work, make_firn, size_of) as sides:
            for key, (_, root) in enumerate(revisions):
                at = copy(paths_of(root), work / "job")
                measured.folder = measured.folder or size_of(at)
                for name in order:
                    seconds, used = sides[name].call("save", f"nix-{key}", at, emptied(work / "runner"))
                    measured.note(key, "save", name, seconds)
                    measured.note(key, "save, processor", name, used)
                    measured.note(key, "stored", name, sides[name].stored() / MB)
                for name in order:
                    other = emptied(work / "restored")
                    seconds, used = sides[name].call("restore", f"nix-{key}", other, emptied(work / "runner"))
                    measured.note(key, "restore", name, seconds)
                    measured.note(key, "restore, processor", name, used)
                    if turn == 0:
                        subprocess.run(["diff", "-r", "--no-dereference", at, other], check=True)
        for folder in ("job", "restored", "runner", "act", "archives"):
            remove(work / folder)
    return measured


def aim(measured, key):
    """What a later key may add, and does."""
    if key == 0:
        return "–"
    before, now, first = (statistics.median(measured.figures[at, "stored"]["firn"]) for at in (key - 1, key, 0))
    return f"adds ≤ 0.1 × key 1's: {(now - before) / first:.3f}"


def table(measured, show):
    texts = {"save": "save", "save, processor": "save, the server's processor time", "restore": "restore",
             "restore, processor": "restore, the server's processor time", "stored": "on the server's disk after it"}
    lines = ["| key | work | unit | Firn | act | copy | Firn ÷ act | Firn ÷ copy | aim |", "|---" * 9 + "|"]
    for what, text in texts.items():
        for key, changed in enumerate(measured.keys):
            values = measured.figures[key, what]
            ratios = [ratio(values["firn"], values[peer]) for peer in SIDES[1:]]
            cells = [f"{key + 1}, {changed}", text, UNITS[what], *(show(values[side]) for side in SIDES), *ratios,
                     aim(measured, key) if what == "stored" else "–"]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def ratio(ours, theirs):
    return f"{statistics.median(ours) / statistics.median(theirs):.2f}"


def versions():
    act = re.search(r"nektos/act v(\S+)", (HERE / "ci-peers/act-cache/go.mod").read_text())[1]
    return act, json.loads((NODE / "@actions/cache/package.json").read_text())["version"]


def write(measured, closure, runs, show, pages):
    act, client = versions()
    lines = [f"{measured.folder / MB:,.0f} MB of store paths (the {closure} closure with an app of 10 MB, half of it new each time), "
             f"saved and restored by the real `@actions/cache` {client} with five",
             f"successive keys; {runs} runs in turns on {time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores. *act* is the cache "
             f"server of nektos' act {act}, *copy* the least server that the client accepts,",
             "which copies archives to files; neither syncs them to the disk before it answers; Firn does. All three are "
             "spoken to by version 1 of the protocol, the only",
             "one that act's server knows.", "", *table(measured, show)]
    print("\n".join(lines))
    if pages:
        bench_pages.put("actions", lines)
