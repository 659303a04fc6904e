"""One ``init`` at a time for each plugin cache: Terraform does not guard it, and parallel inits corrupt it."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from agent.execution import Execution

LOCK = ".terraslot.lock"


@contextmanager
def exclusive(cache: Path | None, execution: Execution) -> Iterator[None]:
    """Hold the cache's lock, which all agents that share the directory respect; nothing to hold without a cache.

    The system frees it when its holder dies. Raises :class:`~agent.execution.Stopped` if the phase is to end while
    it waits.
    """
    lock = None if cache is None else _open(cache)
    if lock is None:
        yield
        return
    with lock:
        if not _taken(lock):
            execution.log.write("Waiting for another init that uses the same plugin cache.")
            execution.wait(lambda: _taken(lock))
        yield


def _open(cache: Path) -> IO[bytes] | None:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        return (cache / LOCK).open("ab")
    except OSError:
        return None  # an agent that can't write here can't corrupt it


def _taken(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
