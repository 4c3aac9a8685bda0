"""What the demo prints around its tables: layers, a verdict, lines to paste."""
import re

from tables import LEGEND, seconds, size

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


def show_tables(*shown):
    """The tables, and what their columns mean."""
    for table in shown:
        print(f"{table}\n")
    print(f"{LEGEND}\n")


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
