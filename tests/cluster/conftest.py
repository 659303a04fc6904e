"""Local pods whose agents are small stand-ins; after each test none of their processes is left."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import eventually
from workers.cluster.local import LocalPods
from workers.cluster.pod_record import read
from workers.cluster.processes import orphaned_groups


@pytest.fixture
def local_pods(tmp_path: Path) -> Iterator[Callable[..., LocalPods]]:
    """Return a maker of backends under one home; ``agent`` is the Python text that stands in for an agent."""
    home = tmp_path / "home"

    def make(agent: str = "import signal; print('ready', flush=True); signal.pause()", **options: Any) -> LocalPods:
        return LocalPods(home, options.pop("environment", {}), command=(sys.executable, "-c", agent), **options)

    yield make
    pods = make()
    for pool in pods.pools():
        directories = list((home / "pods" / pool).iterdir())
        processes = [record.process for path in directories if (record := read(path))]
        children = [
            member
            for path in directories
            for orphan in orphaned_groups(path / "work/children")
            for member in orphan.members
        ]
        for pod in pods.list(pool):
            pods.delete(pod, force=True)
        eventually(lambda pool=pool: not pods.list(pool))
        assert not any(process.alive for process in [*processes, *children])
