"""``python -m bench [NAME …]``: measure, print a table, write ``bench/results.json``.

Without names, it runs everything but ``kubernetes``, which takes as long as all the others together. The table marks a
target that is missed; that is no error, since a busy machine misses some.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from bench.rows import Row, table

USUAL = ("slot_map", "latency", "throughput", "whole_run", "scaling")
EVERY = (*USUAL, "kubernetes")
RESULTS = Path(__file__).with_name("results.json")


def main(names: list[str]) -> int:
    if unknown := set(names) - set(EVERY):
        print(f"No benchmark is called {', '.join(sorted(unknown))}: there are {', '.join(EVERY)}.", file=sys.stderr)
        return 2
    found: dict[str, list[Row]] = {}
    for name in names or USUAL:
        began = time.monotonic()
        found[name] = importlib.import_module(f"bench.{name}").measure()
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    rows = [row for measured in found.values() for row in measured]
    print(table(rows))
    RESULTS.write_text(
        json.dumps({name: [asdict(row) for row in measured] for name, measured in found.items()}, indent=1)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
