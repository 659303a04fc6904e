"""``python -m agent.probe ready|alive``: what the kubelet asks. Exit code 0 is yes; the reason for a no is printed.

The answer is in a file that the agent's worker writes. It is alive while it makes progress; a process or an open port
says nothing (F31). An unreachable Redis is no reason to end an agent: its Terraform goes on, and it reconnects by
itself. So two things count: the heartbeat's thread goes on, whether or not it reaches the slot map; and while it
reaches it, Celery's event loop ticks as well.

The agent's supervisor asks the same, and starts a stuck worker again beside its Terraform. The kubelet would end the
container with its Terraform; so it comes second, with four failures' patience, two minutes.

Times are of the kernel's monotonic clock, in seconds, which all containers of a node share.
"""

import json
import os
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from agent.files import read_regular, write_atomically

# The heartbeat's thread waits for one answer of Redis at most: 10 s, and 10 s until the next attempt.
HEARTBEAT_SECONDS = 120.0
# Celery's loop ticks every 5 s, and stands still while it connects again: with its retries, up to a minute.
TICK_SECONDS = 300.0
_WRITE_SECONDS = 2.0  # a probe looks every 10 s at most
_FILE = "liveness.json"
READY, ALIVE = "ready", "alive"


@dataclass(frozen=True, slots=True)
class Liveness:
    """When what last went on. ``reaching_since``: since when every heartbeat has reached the slot map; None if not."""

    heartbeat_at: float
    tick_at: float
    reaching_since: float | None = None


def stuck(liveness: Liveness, now: float) -> str | None:
    """Return why the agent no longer makes progress; None while it does."""
    if now - liveness.heartbeat_at > HEARTBEAT_SECONDS:
        return f"its heartbeat stopped {now - liveness.heartbeat_at:.0f} s ago"
    if liveness.reaching_since is None:
        return None
    still = now - max(liveness.tick_at, liveness.reaching_since)
    if still > TICK_SECONDS:
        return f"it takes no orders: Celery's event loop has not ticked for {still:.0f} s"
    return None


def read(work_dir: Path) -> Liveness | None:
    """Return the liveness of the agent that works in ``work_dir``; None where nothing is written."""
    with suppress(OSError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError):
        found = json.loads(read_regular(work_dir / _FILE))
        since = found["reaching_since"]
        return Liveness(float(found["heartbeat_at"]), float(found["tick_at"]), None if since is None else float(since))
    return None


class LivenessFile:
    """Writes the liveness of one agent, from any thread. A full disk delays the file, never the work."""

    def __init__(self, work_dir: Path) -> None:
        now = time.monotonic()
        self._path = work_dir / _FILE
        self._liveness = Liveness(heartbeat_at=now, tick_at=now)
        self._written_at = 0.0
        self._lock = threading.Lock()

    def heartbeat(self, *, reached: bool | None = None) -> None:
        """Note that the heartbeat goes on; ``reached``: whether this one reached the slot map, if one was sent."""
        now = time.monotonic()
        changes: dict[str, float | None] = {"heartbeat_at": now}
        if reached is not None:
            changes["reaching_since"] = (self._liveness.reaching_since or now) if reached else None
        self._note(now, **changes)

    def ticked(self) -> None:
        """Note that Celery's event loop ticks."""
        now = time.monotonic()
        self._note(now, tick_at=now)

    def _note(self, now: float, **changes: float | None) -> None:
        with self._lock:
            before, self._liveness = self._liveness, replace(self._liveness, **changes)  # type: ignore[arg-type]
            if now - self._written_at < _WRITE_SECONDS and before.reaching_since == self._liveness.reaching_since:
                return
            self._written_at = now
            with suppress(OSError):
                write_atomically(self._path, json.dumps(asdict(self._liveness)))


def main(question: str) -> int:
    """Answer for the agent that works in ``TERRASLOT_WORK_DIR``."""
    found = read(Path(os.environ.get("TERRASLOT_WORK_DIR", ".")))
    if found is None:
        problem: str | None = "no agent works here"
    elif question == READY:
        problem = None if found.reaching_since else "the agent is not registered"
    else:
        problem = stuck(found, time.monotonic())
    if problem:
        print(problem)  # noqa: T201 - the kubelet shows it
    return int(problem is not None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) == 2 and sys.argv[1] in (READY, ALIVE) else ALIVE))  # noqa: PLR2004
