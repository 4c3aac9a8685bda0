#!/usr/bin/env python3
"""The demo behind tools/demo: builds an image's closure, caches, composes, changes and pulls it,
and prints what each step took beside what the seeds of this project say."""
import argparse, json, os, pathlib, shutil, signal, subprocess, sys, tempfile, time

from closure import DemoImage
from machine import (Container, DemoError, Machine, PulledProgram, Server, Took, fail, free_port, remove,
                     require_programs, timed)
from report import HOW_TO_USE, SEED_LAYERS, show_layers, show_tables, verdict
from tables import Table, seconds

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
        self.image_beside = two.add(PUSH_IMAGE, "first time, its store paths cached", "–",
                                    self.push_image(server, contents, 1))
        self.image_again = two.add(PUSH_IMAGE, "nothing changed", "0.1 s¹ 30 s²", self.push_image(server, contents, 1),
                                   "300 ×")
        two.add(PULL_IMAGE, "into an empty folder", "–", server.pull_with_skopeo("demo:1", self.layout))


def own_closure(demo, path):
    """Of one's own closure nothing is built, so what needs a change of it is left out."""
    contents = "/".join(os.path.realpath(path).split("/")[:4])
    if not contents.startswith("/nix/store/") or not os.path.exists(contents):
        raise DemoError(f"{path} is no store path and no link to one", "CLOSURE is curl, ffmpeg, or a path such as ./result")
    demo.first_and_again(contents)
    print()
    show_tables(demo.level1, demo.level2)
    show_layers(demo, contents, ())
    print("A code change and a dependency update need a closure that the demo can build anew:\n"
          "without CLOSURE it shows those as well.\n")
    verdict(demo.pushed, demo.pushed_again, demo.image_beside, demo.image_again)


class Story:
    """The demo's own image: built, cached, pulled and run; then again after changes."""

    def __init__(self, demo, programs, log):
        self.demo, self.name = demo, programs[-1]
        self.image = DemoImage(programs, demo.machine.work, log)

    def tell(self):
        self.first()
        self.code_change()
        self.updates()
        demo = self.demo
        print()
        show_tables(demo.level1, demo.level2, self.ci_runs())
        show_layers(demo, self.contents, SEED_LAYERS)
        print("RUN · out of the store that Nix pulled, as the only thing in its root\n"
              f"  the image's health check        {self.health}\n"
              f"  GET / before the code change    {json.dumps(self.before)}\n"
              f"  GET / after the code change     {json.dumps(self.after)}\n"
              f"  GET /health in a container      {self.container}\n")
        if self.health != "ok" or self.after["release"] == self.before["release"]:
            raise DemoError("the pulled application does not do what it was built for", f"see {demo.machine.log.name}")
        verdict(demo.pushed, demo.pushed_again, demo.image_beside, demo.image_again, self.changed_push, self.changed_image)

    def first(self):
        image, table = self.image, self.demo.level1
        spent, packages = timed(image.prepare)
        say(f"{packages} Debian packages are store paths now ({seconds(spent)}); compiling the application")
        image.forget()
        self.compiled = table.add(BUILD, "first time", "45 s¹ 40 min²", self.compile())
        self.contents, application = image.build(), image.build("application")
        self.unchanged = table.add(BUILD, "nothing changed, same machine", "0.1 s¹ 30 s²",
                                   Took(timed(image.build)[0]), "450 ×")
        self.demo.first_and_again(self.contents)
        table.add(BUILD, "on another machine: fetched by Nix", "–",
                  self.demo.server.pull_with_nix(application, self.demo.machine.work / "application-store"))
        with PulledProgram(self.demo.machine, self.demo.store, self.contents) as program:
            self.before, self.health = program.about(), program.health()

    def compile(self):
        return Took(timed(lambda: self.image.build("application"))[0])

    def code_change(self):
        demo, one, two = self.demo, self.demo.level1, self.demo.level2
        say("changing the application's code; building, pushing, pulling and running it")
        self.image.change_code()
        self.image.forget()
        self.recompiled = one.add(BUILD, "code change: compiled anew", "45 s¹ 5 min²", self.compile(), compared=False)
        changed = self.image.build()
        self.changed_push = one.add(PUSH, "code change", "1 min²", demo.server.run("push", changed))
        self.changed_image = two.add(PUSH_IMAGE, "code change", "~10 MB¹ 1 min²",
                                     demo.push_image(demo.server, changed, 2))
        beside = "code change, first version is there"
        one.add(PULL, beside, "2 min²", demo.server.pull_with_nix(changed, demo.store))
        two.add(PULL_IMAGE, beside, "–", demo.server.pull_with_skopeo("demo:2", demo.layout))
        with PulledProgram(demo.machine, demo.store, changed) as program:
            self.after = program.about()
        self.container = in_a_container(demo)

    def updates(self):
        say(f"updating {self.name}, then libc6, on which everything stands")
        self.update(self.name, self.image.built_from(self.name), 3, "~100 MB¹" if self.name == "ffmpeg" else "–")
        self.update("libc6", ["libc6"], 4, "–")

    def update(self, name, packages, tag, seed):
        demo, updated = self.demo, self.image.build(updated=packages)
        push = demo.server.run("push", updated)
        renamed = f"{push.report['paths_pushed']} of {push.report['paths_total']} paths"
        demo.level1.add(PUSH, f"{name} updated, {renamed}", "–", push)
        demo.level2.add(PUSH_IMAGE, f"{name} updated", seed, demo.push_image(demo.server, updated, tag))

    def ci_runs(self):
        demo, runs = self.demo, Table("BOTH · a CI run on a fresh machine: the sum of rows above")
        group = "pull what is cached, build, push the image with its store paths"
        changed = plus(demo.pulled, self.recompiled, self.changed_push, self.changed_image)
        runs.add(group, "first run, nothing cached", "75 s¹ 53 min²", plus(self.compiled, demo.image))
        runs.add(group, "nothing changed", "0.2 s¹ 3 min²", plus(demo.pulled, self.unchanged, demo.image_again), "375 ×")
        runs.add(group, f"code change, {seconds(self.recompiled.seconds)} of it compiling", "9 min²", changed, "5.9 ×")
        return runs


def in_a_container(demo):
    """An extra: in many containers and virtual machines podman itself cannot run."""
    if shutil.which("podman") is None:
        return "not tried: there is no podman"
    try:
        with Container(demo.machine, demo.server, "demo:2", free_port()) as container:
            return f"{container.health()} (pulled and run by podman)"
    except DemoError:
        return f"not possible here: podman's reason is in {demo.machine.log.name}"


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
                Story(demo, programs, log).tell()
            else:
                own_closure(demo, arguments.closure)
            print(HOW_TO_USE)
        except DemoError as error:
            fail(error)
        except subprocess.CalledProcessError as error:
            fail(DemoError(f"{error.cmd[0]} failed", f"the whole output is in {arguments.log}"))
        except KeyboardInterrupt:
            sys.exit("\ninterrupted")
        finally:
            demo.stop()
            remove(work)
    print(f"The demo took {seconds(time.monotonic() - begin)}; its servers are ended and its data is removed.")


if __name__ == "__main__":
    main()
