"""Files that the agent writes for other processes, and files of a configuration that it reads.

A configuration may hold a link to a device or a pipe, which the agent would read for ever: only regular files are read.
"""

import errno
import os
import stat
from pathlib import Path

LIMIT = 16 * 2**20  # far above any configuration file


def write_atomically(path: Path, content: str) -> None:
    """Replace a file, which only its owner can read, in one step. Raises ``OSError``."""
    draft = path.with_name(f".{path.name}.draft")
    draft.touch(mode=0o600)
    draft.write_text(content)
    draft.replace(path)


def read_regular(path: Path) -> bytes:
    """Return what a file holds, links followed. Raises ``OSError`` for one that is not regular, or over ``LIMIT``."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    with path.open("rb") as file:
        content = file.read(LIMIT + 1)
    if len(content) > LIMIT:
        raise OSError(errno.EFBIG, f"it is larger than {LIMIT // 2**20} MiB", str(path))
    return content


def is_inside(path: Path, tree: Path) -> bool:
    """Whether a path stays in ``tree`` wherever its links lead."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(tree))
