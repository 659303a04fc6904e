"""The end of an embedded system, whoever ends it: its supervisor, or ``terraslot down`` after that was killed.

First nothing new begins (beat), then the agents drain while the workers still take their reports, then the rest goes,
Valkey last. A child that does not go is killed. Told to stop a second time, agents are not waited for any more:
they are killed, and their terraforms are interrupted and have a minute to store their state. A third time, these are
killed as well.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from redis.exceptions import RedisError

from workers.cluster.local import LocalPods
from workers.cluster.processes import Process
from workers.core.pods import Pod
from workers.embedded.children import FLOWER, VALKEY
from workers.embedded.role import BEAT, CONTROL, REPORTS
from workers.embedded.state import Running, forget
from workers.protocol.errors import TerraslotError
from workers.protocol.names import REPORTS_QUEUE
from workers.services.formatting import counted
from workers.slots.connection import connect

Progress = Callable[[str], None]

_PATIENCE = 15.0
_LAST_REPORTS = 5.0
_TICK = 0.05


class Stopping(Protocol):
    """How often somebody asked for the end: waits, and returns it."""

    def wait(self, seconds: float) -> int:
        """Wait for so long, or until somebody asks again; return how often that was."""


def shut_down(
    home: Path, system: Running, stopping: Stopping, progress: Progress, *, keep_agents: bool = False
) -> None:
    """End everything of the system under ``home``, and remove its description when nothing is left.

    With ``keep_agents`` the agents go on, to be found by the next system under this home.
    """
    processes = {name: child.process for name, child in system.children.items()}

    def end(*names: str) -> None:
        _end([processes[name] for name in names if name in processes], stopping)

    try:
        end(BEAT)
        if not keep_agents:
            _drain(LocalPods(home, {}), stopping, progress)
        if all(name in processes and processes[name].alive for name in (REPORTS, VALKEY)):
            _await_last_reports(system.redis_url, stopping)
    finally:
        end(CONTROL, REPORTS, FLOWER)
        end(VALKEY)
        forget(home)


def _drain(pods: LocalPods, stopping: Stopping, progress: Progress) -> None:
    """Delete all local pods and wait until nothing of them lives; their own deadlines bound that."""
    told = None
    first = min(stopping.wait(0), 1)  # what asked for this shutdown, unless an error did
    try:
        pods.close()
        while left := [pod for pool in pods.pools() for pod in pods.list(pool)]:
            told = _tell(len(left), told, progress)
            again = stopping.wait(_TICK) - first
            for pod in left:
                _delete(pods, pod, again)
    except TerraslotError as error:
        progress(f"Agents may be left: {error}")


def _tell(left: int, told: int | None, progress: Progress) -> int:
    if left != told:
        progress(f"Waiting for {counted(left, 'agent')} to finish")
    return left


def _delete(pods: LocalPods, pod: Pod, again: int) -> None:
    if again > 1:
        pods.delete(pod, force=True)
    elif again == 1:
        pods.hurry(pod)
    elif not pod.deleting:
        pods.delete(pod)


def _await_last_reports(redis_url: str, stopping: Stopping) -> None:
    """Wait until the reports worker has taken what the agents said last, so that the next start finds it done."""
    until = time.monotonic() + _LAST_REPORTS
    with suppress(RedisError), connect(redis_url) as redis:
        while redis.llen(REPORTS_QUEUE) and time.monotonic() < until:
            stopping.wait(_TICK)


def _end(processes: Sequence[Process], stopping: Stopping) -> None:
    """End processes by SIGTERM, and those that don't go in time by SIGKILL."""
    for process in processes:
        process.send(signal.SIGTERM)
    until = time.monotonic() + _PATIENCE
    while left := [process for process in processes if process.alive]:
        if time.monotonic() >= until:
            for process in left:
                process.send(signal.SIGKILL)
        stopping.wait(_TICK)
