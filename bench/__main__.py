"""``python -m bench [--check] [--effort PART] [NAME …]``: measure, print a table, write ``bench/results.json``.

Without names, it runs everything but ``kubernetes``, which takes as long as all the others together. The table marks a
target that is missed. With ``--check``, one that is missed by more than a tenth is an error: a quiet machine is needed.
``--effort 0.01`` repeats everything a hundredth as often, to see that it works; the figures mean nothing then, and are
not written down.
"""

from __future__ import annotations

import argparse
import compileall
import importlib
import json
import sys
import time
from pathlib import Path

from bench.rows import Row, missed, table

USUAL = ("slot_map", "latency", "throughput", "waits", "views", "scaling")
EVERY = (*USUAL, "kubernetes")
ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results.json")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 where a target is missed by more than a tenth"
    )
    parser.add_argument("--effort", type=float, default=1.0, help="a part of all repetitions")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(EVERY)}")
    given = parser.parse_args(arguments)
    if unknown := set(given.names) - set(EVERY):
        parser.error(f"No benchmark is called {', '.join(sorted(unknown))}: there are {', '.join(EVERY)}.")
    for package in ("agent", "workers"):  # as an installation does; else each command would compile them again
        compileall.compile_dir(ROOT / package, quiet=1)
    found: dict[str, list[Row]] = {}
    for name in given.names or USUAL:
        began = time.monotonic()
        found[name] = importlib.import_module(f"bench.{name}").measure(given.effort)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    rows = [row for measured in found.values() for row in measured]
    print(table(rows))
    if given.effort >= 1:
        _write(found)
    return verdict(rows) if given.check else 0


def _write(found: dict[str, list[Row]]) -> None:
    RESULTS.write_text(
        json.dumps({name: [row.as_json() for row in measured] for name, measured in found.items()}, indent=1)
    )


def verdict(rows: list[Row]) -> int:
    """Return the exit code of a check, and name what has failed it."""
    for row in missed(rows):
        print(
            f"Missed by {row.missed_by:.0%}: {row.name}: {row.value:.2f} {row.unit}, not {row.target}.", file=sys.stderr
        )
    return 1 if missed(rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
