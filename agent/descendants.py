"""What a command leaves behind when it has ended, found by whose child it becomes.

Every command is a subreaper: whatever its descendants do (sessions of their own, two forks, signals ignored), they stay
below it while it lives. When it ends they become children of the agent's supervisor, which is a subreaper, too. So the
supervisor's children are the worker, the commands of a worker that has died, and what ended commands left: never the
descendants of a command that another slot executes.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from agent.children import process_started

_PAUSE = 0.0005
_LONGEST_SECONDS = 5.0


@dataclass
class Reaper:
    """The supervisor as its worker and itself see it; ``pid`` is 0 where an agent has none.

    ``kept``: its children that are the agent's own.
    """

    pid: int = 0
    kept: set[int] = field(default_factory=set)

    def kill_orphans(self, spared: Callable[[int], bool] = lambda _: False) -> None:
        """Kill every other child of the supervisor but those ``spared``."""
        _kill(self._orphans(spared))

    def end_orphans(self, spared: Callable[[int], bool] = lambda _: False) -> None:
        """Kill them until none is left; their own children become the supervisor's, and are killed next.

        Not for ever: the kernel may hold a process that is to end. The supervisor looks again every second.
        """
        until = time.monotonic() + _LONGEST_SECONDS
        ended: set[int] = set()
        before: list[int] = []
        # One that has ended since they were listed may have left children that are not in the list.
        while (left := [pid for pid in self._orphans(spared) if pid not in ended]) and time.monotonic() < until:
            ended |= _kill(left)
            if left == before:  # else something forks as fast as it can, and is to be caught
                time.sleep(_PAUSE)
            before = left

    def keep_children(self, which: Callable[[int], bool]) -> None:
        """Count the commands of a worker that has died among the agent's own, for the next worker to know them."""
        self.kept.update(filter(which, self._children()))

    def _orphans(self, spared: Callable[[int], bool]) -> list[int]:
        """Return them with the youngest first: of what forks and ends, it alone goes on."""
        return [pid for pid in reversed(self._children()) if pid not in self.kept and not spared(pid)]

    def _children(self) -> list[int]:
        if self.pid:
            with suppress(OSError):
                return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        return []


def _kill(pids: list[int]) -> set[int]:
    """Kill processes in this order, and return those that had ended already."""
    ended = set()
    for pid in pids:
        if process_started(pid) is None:
            ended.add(pid)
            continue
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return ended


REAPER = Reaper()
