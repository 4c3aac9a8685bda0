"""The registry rows of tools/bench: Firn against docker-registry, by plain HTTP.

Both get the same requests from the same client, in turns. Content is made here from a seed, so that a run
measures what another did.
"""
import concurrent.futures as futures, hashlib, http.client, json, random, subprocess, time

MB = 1e6
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


class Place:
    """A registry, and a client's connection to it."""

    def __init__(self, port, prefix, token=None):
        self.port, self.prefix, self.token = port, prefix, token
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def call(self, method, path, body=b"", want=(200, 201, 202), **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status not in want:
            raise SystemExit(f"{method} {path}: {answer.status} {text[:200]}")
        return answer

    def path(self, name, rest):
        return f"/v2/{self.prefix}{name}/{rest}"

    def begin(self, name):
        """An upload's path, ready for a digest."""
        location = self.call("POST", self.path(name, "blobs/uploads/")).getheader("Location")
        location = "/v2/" + location.split("/v2/", 1)[1]
        return location + ("&" if "?" in location else "?") + "digest="

    def blob(self, name, body):
        digest = "sha256:" + hashlib.sha256(body).hexdigest()
        self.call("PUT", self.begin(name) + digest, body)
        return digest

    def image(self, name, tag, layer):
        config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []},
                             "author": f"{name} {tag}"}).encode()
        parts = [(CONFIG, config), (LAYER, layer)]
        described = [{"mediaType": kind, "digest": self.blob(name, body), "size": len(body)} for kind, body in parts]
        manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": described[0],
                               "layers": described[1:]}).encode()
        self.call("PUT", self.path(name, f"manifests/{tag}"), manifest, Content_Type=MANIFEST)


def push_small(job):
    """Images of 20 kB, one after the other, by one client."""
    port, prefix, token, worker, count, seed = job
    place, source = Place(port, prefix, token), random.Random(seed)
    for index in range(count):
        place.image(f"small-{worker}", f"{seed}-{index}", source.randbytes(20_000))


def pushes_per_second(where, clients, count, seed):
    jobs = [(*where, worker, count // clients, seed * 100 + worker) for worker in range(clients)]
    with futures.ProcessPoolExecutor(clients) as pool:
        list(pool.map(int, range(clients)))  # the processes are there
        begin = time.perf_counter()
        list(pool.map(push_small, jobs))
        return len(jobs) * (count // clients) / (time.perf_counter() - begin)


def curls(commands):
    begin = time.perf_counter()
    children = [subprocess.Popen(["curl", "-sSf", "-o", "/dev/null", *command]) for command in commands]
    if any([child.wait() for child in children]):
        raise SystemExit("curl failed")
    return time.perf_counter() - begin


def up_and_down(where, work, connections, turn, total):
    """Seconds to push blobs of `total` bytes in all, and to pull them."""
    place = Place(*where)
    auth = ["-H", f"Authorization: Bearer {place.token}"] if place.token else []
    up, down = [], []
    for index in range(connections):
        # Half of it compresses, as layers do.
        source = random.Random(turn * 100 + index)
        file = work / f"blob-{index}"
        with open(file, "wb") as out:
            for _ in range(total // connections // 1_000_000):
                out.write(source.randbytes(500_000) + bytes(500_000))
        with open(file, "rb") as content:
            digest = "sha256:" + hashlib.file_digest(content, "sha256").hexdigest()
        url = f"http://127.0.0.1:{place.port}"
        up.append([*auth, "-H", "Content-Type: application/octet-stream", "-H", "Expect:", "-T", str(file),
                   url + place.begin("large") + digest])
        down.append([*auth, url + place.path("large", f"blobs/{digest}")])
    return curls(up), curls(down)


def revisions(where):
    """Ten revisions of a 50 MB layer, of which a tenth in one place is new each time."""
    place, source = Place(*where), random.Random(9)
    layer = bytearray(source.randbytes(50_000_000))
    for revision in range(10):
        start = source.randrange(45_000_000)
        layer[start : start + 5_000_000] = source.randbytes(5_000_000)
        place.image("revisions", str(revision), bytes(layer))


def measure(runs, work, servers, row, size_of, wrk, in_turns):
    """`servers()` gives Firn and docker-registry as ((port, prefix, token), data folder) each, as a context."""
    rates = {(clients, side): [] for clients in (1, 16) for side in (0, 1)}
    moved = {(way, connections, side): [] for way in (0, 1) for connections in (1, 8) for side in (0, 1)}
    tags, stored = {0: [], 1: []}, {0: [], 1: []}
    for turn in range(runs):
        with servers() as sides:
            for side, (where, data) in in_turns(turn, *enumerate(sides)):
                for clients in (1, 16):
                    rates[clients, side].append(pushes_per_second(where, clients, 160, turn + clients))
                for connections in (1, 8):
                    for way, seconds in enumerate(up_and_down(where, work, connections, turn, 1_000_000_000)):
                        moved[way, connections, side].append(seconds)
                path = f"/v2/{where[1]}small-0/manifests/{(turn + 1) * 100}-0"
                tags[side].append(wrk(f"http://127.0.0.1:{where[0]}", [path], 8,
                                      headers=[f"Accept: {MANIFEST}"])[0])
        with servers() as sides:
            for side, (where, data) in enumerate(sides):
                revisions(where)
                stored[side].append(size_of(data) / MB)
    peer = "docker-registry 2.8"
    for clients in (1, 16):
        row(f"registry: small images pushed, {clients} clients", "/s", rates[clients, 0], rates[clients, 1], peer,
            "≥ 1 ×", better="more")
    for way, name in enumerate(("up", "down")):
        for connections in (1, 8):
            row(f"registry: 1 GB of blobs {name}, {connections} connections", "s", moved[way, connections, 0],
                moved[way, connections, 1], peer, "≤ 1 ×")
    row("registry: manifest by tag, 8 connections", "/s", tags[0], tags[1], peer, "≥ 1 ×", better="more")
    row("registry: ten revisions of an image of 50 MB, a tenth new, stored", "MB", stored[0], stored[1], peer, "≤ 1 ×")
