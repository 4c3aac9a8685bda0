"""The programs that the demo runs and times: Firn, Nix and skopeo, each as on a machine of its own."""
import json, os, pathlib, re, shutil, signal, socket, subprocess, sys, time, urllib.error, urllib.request


class DemoError(Exception):
    """A message for people, and what they can do."""

    def __init__(self, message, hint):
        super().__init__(message)
        self.hint = hint


class Took:
    """How long something took, and the bytes that went over the wire for it."""

    def __init__(self, seconds, bytes_moved=None, report=None):
        self.seconds, self.bytes, self.report = seconds, bytes_moved, report or {}


def timed(work):
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def get(url):
    with urllib.request.urlopen(url, timeout=10) as response:
        return response.read().decode()


def until_it_answers(url, child, seconds=20):
    for _ in range(seconds * 50):
        try:
            return get(url)
        except (urllib.error.URLError, OSError):
            if child.poll() is not None:
                break
            time.sleep(0.02)
    raise DemoError(f"nothing answers at {url}", "the log says why")


def end(child):
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(20)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def remove(folder):
    """Removes a folder with read-only store paths in it."""
    subprocess.run(["chmod", "-R", "u+w", folder], check=False, stderr=subprocess.DEVNULL)
    shutil.rmtree(folder, ignore_errors=True)


class Machine:
    """Runs programs, their noise into the log; a failure is told with its last lines."""

    def __init__(self, work, log):
        self.work, self.log = work, log
        self.homes = 0

    def output(self, command, env=None):
        command = [str(word) for word in command]
        done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env=env or os.environ)
        self.log.write(f"$ {' '.join(command)}\n{done.stderr}")
        self.log.flush()
        if done.returncode:
            last = "\n".join(done.stderr.strip().splitlines()[-8:])
            raise DemoError(f"{pathlib.Path(command[0]).name} failed:\n{last}", f"the whole output is in {self.log.name}")
        return done.stdout

    def fresh_home(self):
        """The home of a machine that has never seen Firn, Nix or skopeo."""
        self.homes += 1
        home = self.work / f"home-{self.homes}"
        home.mkdir()
        env = {name: value for name, value in os.environ.items()
               if not name.startswith(("FIRN_", "XDG_", "NIX_"))}
        return {**env, "HOME": str(home)}


class Server:
    """A `firn serve` with nothing in it, on loopback, without any configuration."""

    def __init__(self, machine, firn, name):
        self.machine, self.firn = machine, firn
        self.data, self.port = machine.work / name, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.child = subprocess.Popen([firn, "serve", "--listen", f"127.0.0.1:{self.port}", "--data", self.data],
                                      stdout=machine.log, stderr=machine.log, cwd=machine.work)
        try:
            until_it_answers(f"{self.url}/readyz", self.child)
            self.token = (self.data / "admin.token").read_text().strip()
            self.key = get(f"{self.url}/main/public-key").strip()
        except BaseException:
            self.stop()
            raise

    def stop(self):
        if self.child.poll() is None:
            end(self.child)

    def run(self, *arguments):
        """A command of Firn's on a machine that never ran one."""
        env = {**self.machine.fresh_home(), "FIRN_SERVER": self.url, "FIRN_TOKEN": self.token}
        seconds, out = timed(lambda: self.machine.output([self.firn, *arguments, "--json"], env))
        report = json.loads(out)
        return Took(seconds, report.get("bytes_sent"), report)

    def bytes_served(self):
        metrics = get(f"{self.url}/metrics")
        return sum(float(value) for value in re.findall(r"^firn_sent_bytes_total\S* (\S+)$", metrics, re.M))

    def serving(self, work):
        """Times what fetches from the server."""
        before = self.bytes_served()
        seconds, _ = timed(work)
        return Took(seconds, self.bytes_served() - before)

    def pull_with_nix(self, path, store):
        """Nix fetches a closure into the store below a folder, and checks every signature."""
        env = {**self.machine.fresh_home(), "NIX_CONFIG":
               f"substituters = {self.url}/main\ntrusted-public-keys = {self.key}\nrequire-sigs = true\n"
               "max-jobs = 0\nbuild-users-group =\nsandbox = false\n"}
        return self.serving(lambda: self.machine.output(["nix-store", "--store", store, "--realise", path], env))

    def pull_with_skopeo(self, image, layout):
        """skopeo fetches an image into an OCI layout; layers that lie there it leaves alone."""
        command = ["skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false",
                   f"docker://127.0.0.1:{self.port}/main/{image}", f"oci:{layout}:{image.split(':')[1]}"]
        env = self.machine.fresh_home()
        return self.serving(lambda: self.machine.output(command, env))


class PulledProgram:
    """The image's entrypoint, run out of a pulled store: nothing else is in its root."""

    def __init__(self, machine, store, contents):
        self.machine, self.store, self.contents, self.port = machine, store, contents, free_port()
        self.child = subprocess.Popen([shutil.which("chroot"), store, f"{contents}/bin/entrypoint"], stdout=machine.log,
                                      stderr=machine.log, env={"PORT": str(self.port)})

    def __enter__(self):
        try:
            until_it_answers(f"http://127.0.0.1:{self.port}/health", self.child)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.child.poll() is None:
            end(self.child)

    def about(self):
        return json.loads(get(f"http://127.0.0.1:{self.port}/"))

    def health(self):
        """The image's own health check."""
        return self.machine.output([shutil.which("chroot"), self.store, f"{self.contents}/bin/entrypoint", "health"],
                                   {"PORT": str(self.port)}).strip()


class Container:
    """An image of a server's, pulled and run by podman, whose storage lies in a folder of the demo's."""

    def __init__(self, machine, server, image, port):
        self.machine, self.image, self.port = machine, f"127.0.0.1:{server.port}/main/{image}", port
        # runc also runs under the mixtures of cgroups that crun refuses.
        self.podman = ["podman", "--root", machine.work / "podman", "--runroot", machine.work / "podman-run",
                       "--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "none"]
        self.env = machine.fresh_home()

    def __enter__(self):
        # Limits are set low, because to raise them needs a right that many containers lack.
        run = ["run", "--detach", "--name", "demo", "--network", "host",
               "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]
        try:
            self.machine.output([*self.podman, "pull", "--quiet", "--tls-verify=false", self.image], self.env)
            self.machine.output([*self.podman, *run, "--env", f"PORT={self.port}", self.image], self.env)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        # Whatever of it is there; unmounts what podman mounted below the demo's folder.
        for command in (["rm", "--force", "--all", "--time", "2"], ["rmi", "--force", "--all"]):
            subprocess.run([str(word) for word in [*self.podman, *command]], env=self.env, check=False,
                           stdout=self.machine.log, stderr=self.machine.log)
        subprocess.run(["umount", self.machine.work / "podman" / "overlay"], check=False, stderr=subprocess.DEVNULL)

    def health(self):
        for _ in range(50):
            try:
                return get(f"http://127.0.0.1:{self.port}/health").strip()
            except OSError:
                time.sleep(0.1)
        raise DemoError("the container does not answer", f"see {self.machine.log.name}")


def require_programs(*names):
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        raise DemoError(f"there is no {', '.join(missing)}", "tools/setup packages installs what the demo needs")


def fail(error):
    sys.exit(f"\nerror: {error}\nhint: {error.hint}")
