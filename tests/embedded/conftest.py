"""Embedded systems of a test, each under a home of its own; none of their processes outlives the test."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.waiting import eventually
from workers.cluster import processes
from workers.cluster.local import LocalPods
from workers.cluster.processes import Process
from workers.embedded import state
from workers.embedded.background import down
from workers.settings import settings


def parts(home: Path) -> dict[str, Process]:
    """Return every process of the system under ``home`` that is written down, its agents too."""
    system = state.running(home)
    found = dict(system.children) if system else {}
    if owner := state.supervisor(home):
        found["supervisor"] = owner
    pods = LocalPods(home, {})
    for pool in pods.pools():
        for pod in pods.list(pool):
            pid, _, started = pod.uid.partition(":")
            found[pod.name] = Process(int(pid), started)
    return found


@pytest.fixture
def parts_of() -> Callable[[Path], dict[str, Process]]:
    return parts


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a home for one system; whatever runs under it when the test ends is ended."""
    home = tmp_path / "home"
    monkeypatch.setenv("TERRASLOT_HOME", str(home))
    settings.cache_clear()
    earlier = set(processes._CHILDREN)
    yield home
    left = parts(home) if home.is_dir() else {}
    down(home)
    for process in left.values():
        process.send(signal.SIGKILL)
    assert not any(process.alive for process in left.values())
    # One that ended while it started is asked for by nobody else, and would never be buried.
    eventually(lambda: not any(process.alive for process in set(processes._CHILDREN) - earlier))
    settings.cache_clear()
    assert os.getpid() not in [process.pid for process in left.values()]
