"""Reading files that a configuration may have put in place: what they are is looked at before what they hold.

A link to a device, or a pipe, would be read for ever, in the agent itself, where nothing could end it.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

LIMIT = 16 * 2**20


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
