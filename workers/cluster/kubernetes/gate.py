"""The circuit breaker in front of one cluster, for all threads of a process (F37)."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from workers.core.breaker import Breaker
from workers.protocol.errors import Unavailable


class Gate:
    """Lets calls to one cluster through. ``answered``: whether an error is an answer; None: unknown."""

    def __init__(self, answered: Callable[[Exception], bool | None]) -> None:
        self.clock = time.monotonic
        self._answered = answered
        self._lock = threading.Lock()
        self._breaker = Breaker()
        self._last = ""

    @contextmanager
    def call(self, what: str) -> Iterator[None]:
        """Make one call. Raises :class:`Unavailable` at once while the cluster does not answer."""
        began = self._begin()
        try:
            yield
        except Exception as error:
            self._end(began, what, answered=self._answered(error))
            raise
        self._end(began, what, answered=True)

    def _begin(self) -> float:
        with self._lock:
            now = self.clock()
            if not self._breaker.may_ask(now):
                # The same words during one pause: they become the status of pools.
                wait = self._breaker.ask_at - self._breaker.since
                raise Unavailable(
                    f"The cluster has not answered {self._breaker.unanswered} times in a row, at last when asked to "
                    f"{self._last}. It is asked again after {wait:.0f} s; until then its pods stay as they are."
                )
            self._breaker = self._breaker.asking(now)
            return now

    def _end(self, began: float, what: str, *, answered: bool | None) -> None:
        jitter = random.uniform(0.8, 1.2)  # noqa: S311 - several processes ask one cluster, and not all at once
        with self._lock:
            if answered:
                self._breaker = Breaker()
            elif answered is False:
                self._breaker, self._last = self._breaker.missed(self.clock(), began, jitter), what
