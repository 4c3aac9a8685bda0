"""The demo's image as store paths: Debian packages by mkclosure, put together by image/default.nix."""
import fcntl, importlib.machinery, importlib.util, json, os, pathlib, re, subprocess

PARTS = pathlib.Path(__file__).resolve().parent
EXPRESSION = PARTS / "image"
# Builds as root without Nix's own users or a sandbox: the compiler is the machine's.
NIX = {**os.environ, "NIX_CONFIG": "sandbox = false\nbuild-users-group =\nsubstitute = false\nmax-jobs = 2\n"}


def load_mkclosure():
    loader = importlib.machinery.SourceFileLoader("mkclosure", str(PARTS.parent / "mkclosure"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("mkclosure", loader))
    loader.exec_module(module)
    return module


class DemoImage:
    """Builds the image's closure, and its next versions."""

    def __init__(self, programs, work, log):
        self.programs, self.work, self.log = programs, work, log
        self.mkclosure = load_mkclosure()
        self.app = work / "app"
        subprocess.run(["cp", "-r", EXPRESSION / "app", self.app], check=True)

    def prepare(self):
        """Downloads the packages and adds their trees to the store. Returns how many there are."""
        mk = self.mkclosure
        # Two runs at the same time would delete each other's application, and they share downloads.
        mk.CACHE.mkdir(parents=True, exist_ok=True)
        self.lock = open(mk.CACHE / "lock", "w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        graph = mk.depends(self.programs)
        order, dependencies = mk.acyclic(graph, self.programs)
        # Of these two only the files are wanted, not what their installation would need.
        files_only = ["ca-certificates", "busybox-static"]
        trees = mk.unpack([*order, *[name for name in files_only if name not in order]])
        names = list(trees)
        stored = self._output("nix-store", "--add", *[trees[name] for name in names]).split()
        tree_of = dict(zip(names, stored))
        facts = self._facts(names)
        self.source_of = {name: facts[name]["source"] for name in names}
        packages = [{"name": name, "version": facts[name]["version"], "tree": tree_of[name],
                     "dependencies": dependencies.get(name, [])} for name in names]
        (self.work / "packages.json").write_text(json.dumps(packages))
        (self.work / "builder.sh").write_text(mk.BUILDER)
        self._build("debian")
        return len(order)

    def built_from(self, program):
        """The packages that come from the same source package, as an update of it replaces them all."""
        return [name for name, source in self.source_of.items() if source == self.source_of[program]]

    def build(self, attribute="contents", updated=()):
        """The store path of a part of the image."""
        return self._build(attribute, updated)[0]

    def change_code(self):
        """A change of a header that all files of the application include."""
        header = self.app / "channel.h"
        before = header.read_text()
        after = before.replace("#define RELEASE 1", "#define RELEASE 2")
        assert before != after
        header.write_text(after)

    def forget(self):
        """Removes the application from the store, with what was made of it, so that it is compiled in this run."""
        derivation = self._output("nix-instantiate", *self._arguments("application", ())).strip()
        path = self._output("nix-store", "--query", "--outputs", derivation).strip()
        if os.path.exists(path):
            referrers = self._output("nix-store", "--query", "--referrers-closure", path).split()
            self._output("nix-store", "--delete", *referrers)

    def _arguments(self, attribute, updated):
        given = {"packages": self.work / "packages.json", "builder": self.work / "builder.sh", "app": self.app,
                 "programs": " ".join(self.programs), "updated": json.dumps(list(updated))}
        return [EXPRESSION, "-A", attribute,
                *[word for name, value in given.items() for word in ("--argstr", name, value)]]

    def _build(self, attribute, updated=()):
        return self._output("nix-build", *self._arguments(attribute, updated), "--no-out-link").split()

    def _facts(self, packages):
        """Version and source package of each; one question, since apt takes seconds to answer."""
        facts = {}
        for shown in self._output("apt-cache", "show", "--no-all-versions", *packages).split("\n\n"):
            fields = dict(re.findall(r"^(Package|Version|Source): (\S+)", shown, re.M))
            if fields:
                version = re.sub(r"[^0-9A-Za-z+._?=-]", "-", fields["Version"].split(":")[-1])
                facts[fields["Package"]] = {"version": version, "source": fields.get("Source", fields["Package"])}
        return facts

    def _output(self, *command):
        return subprocess.run([str(word) for word in command], check=True, text=True, stdout=subprocess.PIPE,
                              stderr=self.log, env=NIX).stdout
