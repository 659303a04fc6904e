"""Locks on directories of the agent's disk, for processes and threads; the system frees one when its holder dies."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from agent.execution import Execution

LOCK = ".terraslot.lock"
_PAUSE = 0.05
_TRIES = 10


@contextmanager
def exclusive(directory: Path | None, execution: Execution, waiting: str) -> Iterator[None]:
    """Hold a directory's lock, which all agents that share it respect; nothing to hold without a directory.

    ``waiting`` is what the log says while another holds it. Raises :class:`~agent.execution.Stopped` if the phase is to
    end meanwhile.
    """
    while True:
        lock = None if directory is None else _open(directory)
        if directory is None or lock is None:
            yield
            return
        with lock:
            if not _taken(lock):
                execution.log.write(waiting)
            while not _taken(lock):
                execution.check()
                time.sleep(_PAUSE)
            if _is_there(lock, directory):
                yield
                return
        execution.check()


@contextmanager
def free(directory: Path) -> Iterator[bool]:
    """Yield whether a directory's lock is free; it is held meanwhile. Who holds it may remove the directory."""
    lock = _open(directory)
    if lock is None:
        yield False
        return
    with lock:
        yield _taken(lock) and _is_there(lock, directory)


def _open(directory: Path) -> IO[bytes] | None:
    for _ in range(_TRIES):
        try:
            directory.mkdir(parents=True, exist_ok=True)
            return (directory / LOCK).open("ab")
        except FileNotFoundError:
            continue  # removed since it was made
        except OSError:
            break  # an agent that can't write here can't corrupt it
    return None


def _is_there(lock: IO[bytes], directory: Path) -> bool:
    """Whether a lock still is the directory's: who held it before may have removed the directory."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), os.stat(directory / LOCK))
    except OSError:
        return False


def _taken(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
