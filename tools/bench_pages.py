"""The tables that parts of the benches write by themselves: each stands between two marks of its own in two pages."""
import pathlib

DOCS = pathlib.Path(__file__).resolve().parent.parent / "docs"
# The notes are what `make bench` puts below its own table.
PAGES = [DOCS / name for name in ("benchmarks-notes.md", "benchmarks.md")]


def put(name, lines):
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    for page in PAGES:
        head, rest = page.read_text().split(begin)
        page.write_text("\n".join([head + begin, *lines, end + rest.split(end)[1]]))
