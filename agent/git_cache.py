"""Bare repositories that outlive their runs, so that a repository is fetched once, and then what is new in it.

Each is used by one run at a time, as long as it holds its lock, and holds no credentials. A run uses what is in it only
after the server has let it in.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.execution import Execution
from agent.files import read_regular, write_atomically
from agent.locks import exclusive, free
from agent.terraform_environment import deciding_servers

_REPOSITORY, _USED = "repository", "used"


class GitCache:
    """The cached repositories of an agent: up to ``most`` bytes. What is unused for longest goes first."""

    def __init__(self, directory: Path, most: int) -> None:
        self._directory = directory
        self._most = most

    @contextmanager
    def repository(self, url: str, environment: Mapping[str, str], execution: Execution) -> Iterator[Path]:
        """Hold the repository of a URL for a run, and yield its directory, which may not exist yet.

        ``environment``: what git is given of the workspace, without passwords and keys. Raises
        :class:`~agent.execution.Stopped` while it waits for another run.
        """
        shared_by = json.dumps([url, deciding_servers(environment)])
        place = self._directory / hashlib.sha256(shared_by.encode()).hexdigest()
        with exclusive(place, execution, "Waiting for another run that fetches the same repository."):
            try:
                yield place / _REPOSITORY
            finally:
                with suppress(OSError):
                    write_atomically(place / _USED, str(_size(place / _REPOSITORY)))
        self._make_room()

    def _make_room(self) -> None:
        """Remove repositories until the rest fits. One that is in use stays."""
        places = sorted(self._directory.iterdir(), key=_last_used)
        sizes = {place: _size_when_used(place) for place in places}
        for place in places:
            if sum(sizes.values()) <= self._most:
                return
            with free(place) as is_free:
                if is_free:
                    shutil.rmtree(place / _REPOSITORY, ignore_errors=True)
                    shutil.rmtree(place, ignore_errors=True)  # with its lock, so after all that it guards
                    del sizes[place]


def _last_used(place: Path) -> float:
    try:
        return (place / _USED).stat().st_mtime
    except OSError:
        return 0


def _size_when_used(place: Path) -> int:
    """Return the bytes of a repository, as noted when it was used: to measure all would cost each run that fetches."""
    try:
        return max(0, int(read_regular(place / _USED)))
    except (OSError, ValueError):
        return _size(place / _REPOSITORY)


def _size(directory: Path) -> int:
    size = 0
    for path, _, files in os.walk(directory):
        for file in files:
            with suppress(OSError):
                size += os.lstat(os.path.join(path, file)).st_size
    return size
