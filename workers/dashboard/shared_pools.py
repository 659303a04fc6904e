"""One reader of all pools for every browser and every scrape: what it has read is shared for a second."""

import threading
import time
from collections.abc import Callable, Sequence

from workers.services.pools import views
from workers.services.pools.views import PoolView
from workers.services.system import System

FRESH_SECONDS = 1.0


class SharedPools:
    """The pools as they were within the last second. Threads that ask while they are read wait for that one reading."""

    def __init__(self, system: System, clock: Callable[[], float] = time.monotonic) -> None:
        self._system = system
        self._clock = clock
        self._reading = threading.Lock()
        self._pools: Sequence[PoolView] = ()
        self._read_at = -FRESH_SECONDS

    def every(self) -> Sequence[PoolView]:
        """Return all pools by name. Raises what keeps them from being read, to whoever has to read them."""
        with self._reading:
            now = self._clock()
            if not 0 <= now - self._read_at < FRESH_SECONDS:
                self._pools = views.every(self._system)
                self._read_at = now
            return self._pools
