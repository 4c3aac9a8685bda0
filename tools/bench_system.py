"""Part of tools/bench: a whole system as an image, as the seed's "enhanced container" is one."""
import json, os, pathlib, random, resource, subprocess
import bench_pages

HERE = pathlib.Path(__file__).resolve().parent
UPDATES = ["config", "week", "week", "base", "config", "week", "week", "week", "config", "week", "base", "week"]
MB = 1e6


def store(folder, updates, *arguments):
    words = [word for update in updates for word in ("--update", update)]
    made = subprocess.run([HERE / "mkstore", *arguments, *words, folder], check=True, text=True, stdout=subprocess.PIPE)
    return made.stdout.strip()


class Machine:
    """Firn on a store in a folder, with a home of its own."""

    def __init__(self, firn, folder, timed, home):
        self.firn, self.timed = firn, timed
        self.env = {**os.environ, "NIX_STORE_DIR": str(folder / "store"), "NIX_STATE_DIR": str(folder / "state"), "HOME": str(home)}

    def run(self, *arguments):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds, memory, out = self.timed(self.firn, "image", *arguments, "--json", env=self.env)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {**json.loads(out), "wall": seconds, "cpu": cpu, "memory": memory}


def taken(plans):
    best = min(plans, key=lambda plan: plan["wall"])
    return f"{best['wall']:.2f} s, {best['cpu']:.2f} s of a processor"


def grown(history, revisions, seed):
    """A history as of so many revisions, of which none but the first was made."""
    rng = random.Random(seed)
    for entry in history["names"]:
        entry["seen"] = revisions - 1
        entry["changed"] = min(revisions - 1, int(rng.paretovariate(1.2)) - 1)
    keys = sorted(entry["name"] for entry in history["names"])
    recent = [{"changed": sorted(rng.sample(keys, 12)), "paths": 100, "bytes": 1000000} for _ in range(revisions - 1)]
    return {**history, "revisions": revisions, "recent": recent}


def updates(machine, folder, to):
    """For each kind of update the bytes that were pushed, and those of paths that were new; before compression."""
    sums, memory = {}, []
    for steps in range(1, len(UPDATES) + 1):
        root = store(folder, UPDATES[:steps], *SIZE)
        diff = machine.run("diff", to, root)
        memory.append(machine.run("push", "--no-paths", "--to", to, root)["memory"])
        pushed, new = sums.get(UPDATES[steps - 1], (0, 0))
        sums[UPDATES[steps - 1]] = (pushed + diff["bytes_pushed"], new + diff["bytes_new"])
        print(f"  {UPDATES[steps - 1]}: pushed {diff['bytes_pushed'] / MB:.2f} MB, new {diff['bytes_new'] / MB:.2f} MB", flush=True)
    return sums, max(memory)


SIZE = ["--megabytes", "1010"]


def measure(firn, work, timed, registry, fresh):
    folder = fresh("system")
    root = store(folder, [], *SIZE)
    machine = Machine(firn, folder, timed, fresh("system-home"))
    plan = machine.run("plan", root)
    rows = [[f"plan, {plan['paths_total']:,} paths, {plan['bytes_total'] / MB:,.0f} MB, nothing known", taken([plan]), "< 1 s"]]
    with registry() as other:
        to = f"127.0.0.1:{other.port}/team/system:1"
        first = machine.run("push", "--no-paths", "--to", to, root)
        rows.append(["layers", str(first["layers_total"]), "≤ 100"])
        rows.append(["first push", f"{first['wall']:.1f} s, {first['bytes_sent'] / MB:,.0f} MB sent", "–"])
        sums, memory = updates(machine, folder, to)
        again = machine.run("push", "--no-paths", "--to", to, store(folder, UPDATES, *SIZE))
    rows.append(["memory of the client, most of all pushes", f"{max(memory, first['memory']):.0f} MB", "< 300 MB"])
    for kind, (pushed, new) in sums.items():
        count = UPDATES.count(kind)
        rows.append([f"{count} updates of kind `{kind}`, pushed ÷ new", f"{pushed / MB:,.2f} ÷ {new / MB:,.2f} MB = {pushed / new:.3f}", "≤ 1.1"])
    pushed, new = (sum(pair[i] for pair in sums.values()) for i in (0, 1))
    rows.append(["all updates, pushed ÷ new", f"{pushed / MB:,.1f} ÷ {new / MB:,.1f} MB = {pushed / new:.3f}", "≤ 1.1"])
    rows.append(["nothing changed", f"{again['wall']:.2f} s, {again['bytes_sent'] / 1024:.0f} KiB sent", "–"])
    large = fresh("large")
    double = ["--times", "2", "--megabytes", "20"]
    machine = Machine(firn, large, timed, fresh("system-home"))
    known = work / "history.json"
    machine.run("build", "--history", known, "--output", work / "large.tar", store(large, [], *double))
    known.write_text(json.dumps(grown(json.loads(known.read_text()), 201, 1)))
    root = store(large, ["week"], *double)
    plans = [machine.run("plan", "--history", known, root) for _ in range(3)]
    rows.append([f"plan, {plans[0]['paths_total']:,} paths, 201 revisions known", taken(plans), "< 1 s"])
    return rows


def write(rows, pages):
    lines = ["| what | measured | aim |", "|---|---|---|"] + ["| " + " | ".join(row) + " |" for row in rows]
    print("\n".join(lines))
    if pages:
        bench_pages.put("system", lines)
