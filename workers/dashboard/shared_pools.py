"""One reader of all pools for every browser and every scrape: what it has read is shared for a second."""

import threading
import time
from collections.abc import Callable, Sequence

from workers.services.pools import views
from workers.services.pools.views import PoolView
from workers.services.system import System

FRESH_SECONDS = 1.0


class SharedPools:
    """The pools as they were within the last second. Threads that ask while they are read wait for that one reading.

    What kept them from being read is shared alike: nobody waits for a server that was just found to hang.
    """

    def __init__(self, system: System, clock: Callable[[], float] = time.monotonic) -> None:
        self._system = system
        self._clock = clock
        self._reading = threading.Lock()
        self._found: Sequence[PoolView] | Exception = ()
        self._read_at = -FRESH_SECONDS

    def every(self) -> Sequence[PoolView]:
        """Return all pools by name. Raises what keeps them from being read."""
        with self._reading:
            if not 0 <= self._clock() - self._read_at < FRESH_SECONDS:
                self._found = self._read()
                self._read_at = self._clock()
            found = self._found
        if isinstance(found, Exception):
            raise found
        return found

    def _read(self) -> Sequence[PoolView] | Exception:
        try:
            return views.every(self._system)
        except Exception as error:  # noqa: BLE001 - raised to everybody who asks
            return error
