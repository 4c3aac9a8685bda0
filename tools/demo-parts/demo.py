#!/usr/bin/env python3
"""The demo behind tools/demo: builds an image's closure, caches, composes, changes and pulls it,
and prints what each step took beside what the seeds of this project say."""
import argparse, json, os, pathlib, re, shutil, signal, subprocess, sys, tempfile, time

from closure import DemoImage
from machine import Container, DemoError, Machine, PulledProgram, Server, Took, fail, free_port, remove, require_programs, timed
from tables import LEGEND, Table, ratio, seconds, size

PORT = "8080"

# The groups of the tables.
BUILD = "build the application"
PUSH = "push the closure"
PULL = "pull the closure, by Nix, signatures checked"
PUSH_IMAGE = "compose and push the image, with its store paths"
PULL_IMAGE = "pull the image, by skopeo"


def say(what):
    print(f"  {what}", flush=True)


def plus(*parts):
    """Steps of one CI run, one after the other."""
    moved = [part.bytes for part in parts if part.bytes is not None]
    return Took(sum(part.seconds for part in parts), sum(moved) if moved else None)


class Demo:
    """One closure, one server with everything in it, and machines that come new to it."""

    def __init__(self, machine, firn):
        self.machine, self.firn = machine, firn
        self.servers = []
        self.store, self.layout = machine.work / "pulled-store", machine.work / "pulled-image"
        self.level1 = Table("LEVEL 1 · the Nix store: what is built again")
        self.level2 = Table("LEVEL 2 · the image: what is composed, uploaded and pulled again")

    def serve(self):
        server = Server(self.machine, self.firn, f"firn-data-{len(self.servers)}")
        self.servers.append(server)
        return server

    def stop(self):
        for server in self.servers:
            server.stop()

    def image_flags(self, contents):
        if not os.path.exists(f"{contents}/bin/entrypoint"):
            return []
        entrypoint = f"{contents}/bin/entrypoint"
        return ["--entrypoint", entrypoint, "--port", PORT,
                *[f"--health-exec={word}" for word in (entrypoint, "health")], "--health-interval", "10s"]

    def push_image(self, server, contents, tag):
        return server.run("image", "push", "--name", f"demo:{tag}", *self.image_flags(contents), contents)

    def first_and_again(self, contents):
        """What any closure can show: pushed first, pushed again, pulled; then the same of its image."""
        server = self.server = self.serve()
        one, two = self.level1, self.level2
        say("pushing the closure, and again; pulling it into an empty store")
        self.pushed = one.add(PUSH, "first time", "5 min²", server.run("push", contents))
        self.pushed_again = one.add(PUSH, "nothing changed", "–", server.run("push", contents))
        self.pulled = one.add(PULL, "into an empty store", "2 min²", server.pull_with_nix(contents, self.store))
        say("composing and pushing its image, and again; pulling it")
        other = self.serve()
        self.image = two.add(PUSH_IMAGE, "first time, nothing cached", "30 s¹ 8 min²", self.push_image(other, contents, 1))
        other.stop()
        two.add(PUSH_IMAGE, "first time, its store paths cached", "–", self.push_image(server, contents, 1))
        self.image_again = two.add(PUSH_IMAGE, "nothing changed", "0.1 s¹ 30 s²", self.push_image(server, contents, 1),
                                   "300 ×")
        two.add(PULL_IMAGE, "into an empty folder", "–", server.pull_with_skopeo("demo:1", self.layout))


# What the first seed says of its layers: name, size, how often it changes.
SEED_LAYERS = {"cacert": "~200 KB, rarely", "busybox": "~2 MB, rarely", "curl": "~5 MB, rarely",
               "ffmpeg": "~100 MB, with updates", "app": "~10 MB, with code", "entrypoint": "–", "demo-image": "–"}


def show_layers(demo, contents, named):
    """The layers with their sizes, and what would change each: those of `named` paths, else the largest."""
    plan = demo.server.run("image", "plan", *demo.image_flags(contents), contents).report
    layers = plan["layers"]
    print(f"LAYERS · {len(layers)} layers for {plan['paths_total']} store paths, {size(plan['bytes_total'])} unpacked; "
          "lowest first")
    print(f"  {'':<38}{'size':>9}  {'seed says':<23}changes with")
    print("  " + "─" * 97)
    largest = sorted(layers, key=lambda layer: layer["bytes"])[-12:]
    others = []
    for layer in layers:
        titles = [package_name(path) for path in layer["paths"]]
        chosen = [title for title in titles if title in named]
        if chosen or not titles or (not named and layer in largest):
            print(f"  {holds(layer, chosen or titles):<38}{size(layer['bytes']):>9}  "
                  f"{SEED_LAYERS.get(chosen[0], '–') if chosen else '–':<23}{changes_with(layer)}")
        else:
            others.append(layer)
    if others:
        print(f"  {f'{len(others)} layers of ' + ('libraries' if named else 'smaller ones'):<38}"
              f"{size(sum(layer['bytes'] for layer in others)):>9}  {'–':<23}itself, what it needs")
    print()


def package_name(path):
    """`/nix/store/<hash>-curl-7.88.1` and `<hash>-curl-7.88.1` are of curl."""
    base = path.rsplit("/", 1)[-1][33:]
    return re.split(r"-(?=\d)", base, maxsplit=1)[0]


def holds(layer, titles):
    if not titles:
        return "files at the root: /tmp, passwd, links"
    more = len(layer["paths"]) - 1
    return titles[0][:30] + (f" and {more} more" if more else "")


def changes_with(layer):
    below = layer["changes_with"] - len(layer["paths"])
    if not layer["paths"]:
        return "the image's contents"
    itself = "itself" if len(layer["paths"]) == 1 else "any of them"
    return f"{itself} only" if below <= 0 else f"{itself}, {below} path{'s' if below > 1 else ''} it needs"


def own_closure(demo, path):
    """Of one's own closure nothing is built, so what needs a change of it is left out."""
    contents = "/".join(os.path.realpath(path).split("/")[:4])
    if not contents.startswith("/nix/store/") or not os.path.exists(contents):
        raise DemoError(f"{path} is no store path and no link to one", "CLOSURE is curl, ffmpeg, or a path such as ./result")
    demo.first_and_again(contents)
    print()
    tables(demo, [])
    show_layers(demo, contents, ())
    print("A code change and a dependency update need a closure that the demo can build anew:\n"
          "without CLOSURE it shows those as well.\n")
    verdict(demo.pushed, demo.pushed_again, demo.image, demo.image_again)


def tables(demo, more):
    for table in (demo.level1, demo.level2, *more):
        print(f"{table}\n")
    print(f"{LEGEND}\n")


def demo_image(demo, programs, log):
    """The whole story: first build, nothing changed, code change, updates, pulls."""
    image = DemoImage(programs, demo.machine.work, log)
    one, two = demo.level1, demo.level2
    spent, packages = timed(image.prepare)
    say(f"{packages} Debian packages are store paths now ({seconds(spent)}); compiling the application")
    update = image.built_from(programs[-1])
    image.forget()
    compiled = one.add(BUILD, "first time", "45 s¹ 40 min²", Took(timed(lambda: image.build("application"))[0]))
    contents, application = image.build(), image.build("application")
    unchanged = one.add(BUILD, "nothing changed, same machine", "0.1 s¹ 30 s²", Took(timed(image.build)[0]), "450 ×")
    demo.first_and_again(contents)
    fetched = demo.server.pull_with_nix(application, demo.machine.work / "application-store")
    with PulledProgram(demo.machine, demo.store, contents) as program:
        before, health = program.about(), program.health()

    say("changing the application's code; building, pushing and pulling it")
    image.change_code()
    image.forget()
    recompiled = Took(timed(lambda: image.build("application"))[0])
    changed = image.build()
    changed_push = demo.server.run("push", changed)
    changed_image = demo.push_image(demo.server, changed, 2)
    changed_pull = demo.server.pull_with_nix(changed, demo.store)
    changed_image_pull = demo.server.pull_with_skopeo("demo:2", demo.layout)
    with PulledProgram(demo.machine, demo.store, changed) as program:
        after = program.about()
    container = in_a_container(demo)

    name = programs[-1]
    say(f"updating {name}, then libc6, on which everything stands")
    updated = image.build(updated=update)
    updated_push, updated_image = demo.server.run("push", updated), demo.push_image(demo.server, updated, 3)
    rebuilt = image.build(updated=["libc6"])
    rebuilt_push, rebuilt_image = demo.server.run("push", rebuilt), demo.push_image(demo.server, rebuilt, 4)

    one.add(BUILD, "on another machine: fetched by Nix", "–", fetched)
    one.add(BUILD, "code change: compiled anew", "45 s¹ 5 min²", recompiled, compared=False)
    one.add(PUSH, "code change", "1 min²", changed_push)
    one.add(PUSH, f"{name} updated, {renamed(updated_push)}", "–", updated_push)
    one.add(PUSH, f"libc6 updated, {renamed(rebuilt_push)}", "–", rebuilt_push)
    one.add(PULL, "code change, first version is there", "2 min²", changed_pull)
    two.add(PUSH_IMAGE, "code change", "~10 MB¹ 1 min²", changed_image)
    two.add(PUSH_IMAGE, f"{name} updated", "~100 MB¹" if name == "ffmpeg" else "–", updated_image)
    two.add(PUSH_IMAGE, "libc6 updated", "–", rebuilt_image)
    two.add(PULL_IMAGE, "code change, first version is there", "–", changed_image_pull)

    runs = Table("BOTH · a CI run on a fresh machine: the sum of rows above")
    group = "pull what is cached, build, push the image with its store paths"
    runs.add(group, "first run, nothing cached", "75 s¹ 53 min²", plus(compiled, demo.image))
    runs.add(group, "nothing changed", "0.2 s¹ 3 min²", plus(demo.pulled, unchanged, demo.image_again), "375 ×")
    runs.add(group, f"code change, {seconds(recompiled.seconds)} of it compiling", "9 min²", plus(demo.pulled, recompiled, changed_push, changed_image), "5.9 ×")
    print()
    tables(demo, [runs])
    show_layers(demo, contents, SEED_LAYERS)
    print("RUN · out of the store that Nix pulled, as the only thing in its root\n"
          f"  the image's health check        {health}\n"
          f"  GET / before the code change    {json.dumps(before)}\n"
          f"  GET / after the code change     {json.dumps(after)}\n"
          f"  GET /health in a container      {container}\n")
    if health != "ok" or after["release"] == before["release"]:
        raise DemoError("the pulled application does not do what it was built for", f"see {log.name}")
    verdict(demo.pushed, demo.pushed_again, demo.image, demo.image_again, changed_push, changed_image)


def in_a_container(demo):
    """An extra: in many containers and virtual machines podman itself cannot run."""
    if shutil.which("podman") is None:
        return "not tried: there is no podman"
    try:
        with Container(demo.machine, demo.server, "demo:2", free_port()) as container:
            return f"{container.health()} (pulled and run by podman)"
    except DemoError:
        return f"not possible here: podman's reason is in {demo.machine.log.name}"


def renamed(took):
    return f"{took.report['paths_pushed']} of {took.report['paths_total']} paths"


def verdict(pushed, again, image, image_again, *changed):
    """First, again and changed: what both levels together took and sent."""
    def both(*took):
        return f"{seconds(sum(each.seconds for each in took))}, {size(sum(each.bytes for each in took))}"
    text = f"VERDICT · both levels: first {both(pushed, image)}; unchanged {both(again, image_again)}"
    print(text + (f"; code change {both(*changed)}\n" if changed else "\n"))


HOW_TO_USE = """\
USE IT FOR REAL · lines to paste
  firn serve                            # in another terminal; http://127.0.0.1:8484, ./firn-data
  nix build                             # or nix-build: what you want to cache, as ./result
  firn push ./result
  firn image push --name app:1 --entrypoint NAME ./result
  docker run 127.0.0.1:8484/main/app:1  # or podman; for Docker < 23 push with --compression gzip

  firn use main                         # writes the next lines, with the key
    # nix.conf
    extra-substituters = http://127.0.0.1:8484/main
    extra-trusted-public-keys = <what http://127.0.0.1:8484/main/public-key says>
  firn use main --flake                 # prints this block for a flake, with the key:
    nixConfig = {
      extra-substituters = [ "http://127.0.0.1:8484/main" ];
      extra-trusted-public-keys = [ "<the same>" ];
    };
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("closure", help="curl, ffmpeg, or a store path")
    parser.add_argument("--firn", required=True, type=pathlib.Path)
    parser.add_argument("--log", required=True)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    begin, firn = time.monotonic(), arguments.firn.resolve()
    work = pathlib.Path(tempfile.mkdtemp(prefix="firn-demo-"))
    with open(arguments.log, "a") as log:
        demo = Demo(Machine(work, log), firn)
        try:
            require_programs("nix-store", "nix-build", "patchelf", "gcc", "skopeo", "chroot")
            print("\nRunning", flush=True)
            if arguments.closure in ("curl", "ffmpeg"):
                programs = ["curl"] if arguments.closure == "curl" else ["curl", "ffmpeg"]
                demo_image(demo, programs, log)
            else:
                own_closure(demo, arguments.closure)
            print(HOW_TO_USE)
        except DemoError as error:
            fail(error)
        except subprocess.CalledProcessError as error:
            fail(DemoError(f"{error.cmd[0]} failed", f"the whole output is in {arguments.log}"))
        finally:
            demo.stop()
            remove(work)
    print(f"The demo took {seconds(time.monotonic() - begin)}; its servers are ended and its data is removed.")


if __name__ == "__main__":
    main()
