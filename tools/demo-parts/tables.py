"""The demo's tables: the seeds' figures beside those of this run."""

WIDTHS = (42, 18, 10, 16, 11)
LEGEND = """\
  seed says   ¹ "Nix Caching Strategy": a Go program of ~10 MB and ffmpeg, an image of ~117 MB
              ² "GitHub Actions Cache Setup": a CI run that restores, builds, pushes and saves
  here        measured in this run, over loopback; each push and pull on a machine new to Firn (its
              home is empty, and for pulls its store, unless the row says otherwise)
  speed-up    the first row of the group divided by this one; in brackets by the seed's figures
  updated     the package and all that stands on it rebuilt: new names, code nearly the same
  moved       bytes sent to the server, requests and ids included; for pulls, bytes it sent
  –           the seed does not say, or there is nothing to compare with"""


def seconds(value):
    if value >= 100:
        return f"{value / 60:.1f} min"
    return f"{value:.1f} s" if value >= 1 else f"{value:.2f} s"


def size(value):
    if value is None:
        return "–"
    for unit, limit in (("B", 1e3), ("KB", 1e6), ("MB", 1e9)):
        if value < limit:
            figure = value / (limit / 1e3)
            return f"{figure:.0f} {unit}" if unit == "B" or figure >= 100 else f"{figure:.1f} {unit}"
    return f"{value / 1e9:.2f} GB"


def ratio(first, now):
    value = first / now
    return f"{value:.0f} ×" if value >= 10 else f"{value:.1f} ×"


def line(*cells):
    first, *rest = cells
    return f"  {first:<{WIDTHS[0]}}" + "".join(f"{cell:>{width}}" for cell, width in zip(rest, WIDTHS[1:]))


class Table:
    """Groups of rows; a group's first row is what its others are compared with."""

    def __init__(self, title):
        self.title, self.groups = title, {}

    def add(self, group, work, seed, took, seed_speed_up=None, compared=True):
        self.groups.setdefault(group, []).append((work, seed, took, seed_speed_up, compared))
        return took

    def __str__(self):
        lines = [self.title, line("", "seed says", "here", "speed-up", "moved"), "  " + "─" * sum(WIDTHS)]
        for group, rows in self.groups.items():
            first = rows[0][2]
            lines.append(f"  {group}")
            for work, seed, took, seed_speed_up, compared in rows:
                speed_up = "–" if took is first or not compared else ratio(first.seconds, took.seconds)
                if seed_speed_up:
                    speed_up += f" ({seed_speed_up})"
                lines.append(line("  " + work, seed, seconds(took.seconds), speed_up, size(took.bytes)))
        return "\n".join(lines)
