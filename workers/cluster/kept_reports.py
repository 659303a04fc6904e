"""Reports that a local agent had on disk when it died: no agent sends them any more, so the control plane reads them.

They are data, as all reports are: of a bounded number of regular files of bounded size, read without following a link,
for the agent may be another user's; and what they say counts only with the token of its lease.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from workers.cluster import agent_files
from workers.protocol.agent_directory import REPORTS

_MOST = 16  # an agent has three slots
_LONGEST = 300_000  # bytes: what a queue takes, and its lease


def save(work: Path, target: Path, agent: str) -> None:
    """Copy the reports that a dead agent had kept to ``target``. Raises ``OSError`` where that can't be written."""
    for number, report in enumerate(_kept(work)):
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = target / f"{agent}.{number}.new"
        fresh.write_bytes(report)
        fresh.replace(target / f"{agent}.{number}.json")


def take(directory: Path) -> Iterator[bytes]:
    """Yield the reports that were saved there; each is removed when the next one is asked for."""
    for path in sorted(directory.glob("*.json")):
        yield path.read_bytes()
        path.unlink(missing_ok=True)


def _kept(work: Path) -> Iterator[bytes]:
    with suppress(OSError):
        directory = os.open(work / REPORTS, agent_files.NO_LINK | os.O_DIRECTORY)
        try:
            for name in sorted(name for name in os.listdir(directory) if name.endswith(".json"))[:_MOST]:
                with suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
                    yield json.dumps(json.loads(agent_files.read(name, _LONGEST, directory)[0])["report"]).encode()
        finally:
            os.close(directory)
