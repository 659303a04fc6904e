"""Files of a local agent, which a configuration may have written: no link is followed, and nothing is waited for."""

import os
import stat
from pathlib import Path

NO_LINK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read(path: Path | str, longest: int, directory: int | None = None) -> tuple[bytes, int]:
    """Return what a regular file of at most ``longest`` bytes holds, and its owner's uid. Raises ``OSError``.

    ``directory``: the descriptor of the directory that a relative path is of.
    """
    with os.fdopen(os.open(path, NO_LINK, dir_fd=directory), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size > longest:
            raise OSError(f"{path} is no regular file of at most {longest} bytes")
        return file.read(longest), found.st_uid
