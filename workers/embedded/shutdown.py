"""The end of an embedded system: by its supervisor, or by ``terraslot down`` after that was killed.

First nothing new begins (beat), then the agents drain while the workers still take their reports, then the rest goes,
Valkey last. A child that does not go is killed. Told to stop a second time, the system kills its agents, interrupts
their Terraforms and gives these a minute to store their state. A third time, it kills these as well.
"""

import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from redis.exceptions import RedisError

from workers.cluster.local import LocalPods
from workers.cluster.processes import Process
from workers.embedded.component import BEAT, CLUSTER, CONTROL, REPORTS
from workers.embedded.state import Running, forget
from workers.protocol.errors import TerraslotError
from workers.protocol.redis_address import parse
from workers.services.formatting import counted
from workers.slots.connection import connect
from workers.slots.report_queue import anything_waits

Progress = Callable[[str], None]

VALKEY, FLOWER = "valkey", "flower"
# Seconds. Celery ends within one when it is idle; a cycle that waits for a cluster is repeated by the next start.
_PATIENCE = 15.0
_LAST_REPORTS = 5.0
_TICK = 0.05
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Counts SIGINT, SIGTERM and SIGHUP of the main thread while it is entered, instead of dying of them.

    ``tied_to`` is the reading end of a pipe whose other end a parent holds: its death counts as one signal.
    """

    def __init__(self, tied_to: int | None = None) -> None:
        self.count = 0
        self._tied_to = tied_to

    def __enter__(self) -> Self:
        self._awake, self._wake = os.pipe()
        os.set_blocking(self._awake, False)
        os.set_blocking(self._wake, False)
        # Python writes a byte for every signal that has a handler; a full pipe has woken the waiting side already.
        self._wakeup = signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, lambda *_: None) for number in _STOPPING}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._awake)
        os.close(self._wake)

    def wait(self, seconds: float) -> int:
        """Wait for so long, or until a signal comes; return how many came so far."""
        watched = [self._awake] if self._tied_to is None else [self._awake, self._tied_to]
        ready, _, _ = select.select(watched, [], [], seconds)
        if self._awake in ready:
            self.count += len(os.read(self._awake, 1024))
        if self._tied_to in ready:
            self._tied_to = None
            self.count += 1
        return self.count


def shut_down(
    home: Path, system: Running, stopping: Interrupts, progress: Progress, *, keep_agents: bool = False
) -> None:
    """End everything of the system under ``home``, and remove its description when nothing is left.

    With ``keep_agents`` the agents go on, to be found by the next system under this home.
    """
    children = system.children

    def end(*names: str) -> None:
        _end([children[name] for name in names if name in children], stopping)

    try:
        end(BEAT)
        if not keep_agents:
            _drain(LocalPods(home, {}), stopping, progress)
        if REPORTS in children and children[REPORTS].alive:
            _await_last_reports(system.redis_url, stopping)
    finally:
        end(CONTROL, CLUSTER, REPORTS, FLOWER)
        end(VALKEY)
        forget(home)


def _drain(pods: LocalPods, stopping: Interrupts, progress: Progress) -> None:
    """Delete all local pods and wait until nothing of them lives; their own deadlines bound that."""
    told = None
    first = min(stopping.wait(0), 1)  # what asked for this shutdown, unless an error did
    try:
        pods.close()
        while left := [pod for pool in pods.pools() for pod in pods.list(pool)]:
            if len(left) != told:
                told = len(left)
                progress(f"Waiting for {counted(told, 'agent')} to finish")
            again = stopping.wait(_TICK) - first
            for pod in left:
                if again == 1:
                    pods.expire_grace(pod)
                elif again or not pod.deleting:
                    pods.delete(pod, force=again > 1)
    except TerraslotError as error:
        progress(f"Agents may be left: {error}")


def _await_last_reports(redis_url: str, stopping: Interrupts) -> None:
    """Wait until the report reader has taken the agents' last reports, so that the next start finds them done."""
    until = time.monotonic() + _LAST_REPORTS
    with suppress(RedisError), connect(parse(redis_url)) as redis:
        while anything_waits(redis) and time.monotonic() < until:
            stopping.wait(_TICK)


def _end(processes: Sequence[Process], stopping: Interrupts) -> None:
    """End processes by SIGTERM, and those that don't go in time by SIGKILL."""
    for process in processes:
        process.send(signal.SIGTERM)
    until = time.monotonic() + _PATIENCE
    while left := [process for process in processes if process.alive]:
        if time.monotonic() >= until:
            for process in left:
                process.send(signal.SIGKILL)
        stopping.wait(_TICK)
