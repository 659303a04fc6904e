"""Renew what expires, from a thread of its own, while something slow is done under it.

So a lock may expire soon after its holder has died, and yet outlast a call that takes long. Work that is stuck must
not keep its lock for ever: it is renewed for a bounded time after the last sign of progress.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog
from redis.exceptions import RedisError

from workers.protocol.errors import TerraslotError

log = structlog.get_logger(__name__)


@dataclass(eq=False)
class Renewal:
    """Something that is renewed. Times are seconds of the monotonic clock; ``patience``: since the last progress."""

    renew: Callable[[], object]
    every: float
    patience: float
    due: float = field(init=False)
    until: float = field(init=False)

    def __post_init__(self) -> None:
        self.progress()
        self.due = time.monotonic() + self.every

    def progress(self) -> None:
        """Let it be renewed for its patience from now."""
        self.until = time.monotonic() + self.patience


class Renewer:
    """One thread for everything that this process keeps renewing; it starts with the first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._renewals: set[Renewal] = set()
        self._wakes_at = math.inf
        self._thread: threading.Thread | None = None

    @contextmanager
    def renewing(self, renewal: Renewal) -> Iterator[None]:
        """Renew this until the block ends."""
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="renewer", daemon=True)
                self._thread.start()
            self._renewals.add(renewal)
            if renewal.due < self._wakes_at:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._renewals.discard(renewal)

    def _work(self) -> None:
        while True:
            for renewal in self._await_due():
                try:
                    renewal.renew()
                except (RedisError, TerraslotError) as error:  # it is tried again, or has expired by then
                    log.warning("not renewed", error=str(error))

    def _await_due(self) -> list[Renewal]:
        with self._changed:
            while not (due := self._due(now := time.monotonic())):
                self._wakes_at = min((renewal.due for renewal in self._renewals), default=math.inf)
                self._changed.wait(None if math.isinf(self._wakes_at) else self._wakes_at - now)
            return due

    def _due(self, now: float) -> list[Renewal]:
        self._renewals -= {renewal for renewal in self._renewals if now > renewal.until}
        due = [renewal for renewal in self._renewals if now >= renewal.due]
        for renewal in due:
            renewal.due = now + renewal.every
        return due
