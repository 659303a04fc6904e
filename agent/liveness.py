"""Signs of life: what a probe in the same pod reads to tell a working agent from a wedged one.

Alive is who makes progress, not who has a process or an open port (F31). An unreachable Redis is no reason
to end an agent: its terraform goes on, and it reconnects by itself. So two things count: the pulse's thread goes
round, whether or not it reaches the slot map; and while it reaches it, Celery's loop turns as well.

Times are of the kernel's monotonic clock, in seconds, which all containers of a node share.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

PULSE_SECONDS = 120.0
TURN_SECONDS = 300.0
_WRITE_SECONDS = 2.0
_FILE = "vitals.json"


class Vitals(BaseModel):
    """The last signs of life. ``reaching_since``: since when every beat has reached the slot map; None if not."""

    model_config = ConfigDict(frozen=True)

    pulse_at: float
    turned_at: float
    reaching_since: float | None = None
    registered: bool = False


def wedged(vitals: Vitals, now: float) -> str | None:
    """Return why the agent no longer makes progress; None while it does."""
    if now - vitals.pulse_at > PULSE_SECONDS:
        return f"its pulse stopped {now - vitals.pulse_at:.0f} s ago"
    if vitals.reaching_since is None:
        return None
    still = now - max(vitals.turned_at, vitals.reaching_since)
    if still > TURN_SECONDS:
        return f"it takes no orders: Celery's loop has not turned for {still:.0f} s"
    return None


def read(work_dir: Path) -> Vitals | None:
    """Return the signs of life of the agent that works in ``work_dir``; None where there are none."""
    try:
        return Vitals.model_validate_json((work_dir / _FILE).read_bytes())
    except (OSError, ValidationError):
        return None


class VitalSigns:
    """Writes the signs of one agent, from any thread; a full disk costs signs, never work."""

    def __init__(self, work_dir: Path) -> None:
        now = time.monotonic()
        self._path = work_dir / _FILE
        self._vitals = Vitals(pulse_at=now, turned_at=now)
        self._written_at = 0.0
        self._lock = threading.Lock()

    def pulse(self, *, reached: bool | None = None) -> None:
        """Note that the pulse goes on; ``reached``: whether this beat reached the slot map, if it was one."""
        now = time.monotonic()
        changes: dict[str, object] = {"pulse_at": now}
        if reached is not None:
            changes |= {
                "registered": reached,
                "reaching_since": (self._vitals.reaching_since or now) if reached else None,
            }
        self._note(now, **changes)

    def turned(self) -> None:
        """Note that Celery's loop turns."""
        now = time.monotonic()
        self._note(now, turned_at=now)

    def _note(self, now: float, **changes: object) -> None:
        with self._lock:
            before, self._vitals = self._vitals, self._vitals.model_copy(update=changes)
            if now - self._written_at < _WRITE_SECONDS and before.registered == self._vitals.registered:
                return
            self._written_at = now
            fresh = self._path.with_suffix(".new")
            try:
                fresh.write_text(self._vitals.model_dump_json())
                os.replace(fresh, self._path)
            except OSError:
                return
