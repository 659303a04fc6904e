"""Directories that are kept for later runs, and whether they still are as they were kept.

A configuration runs as its agent does and may write to them. The kernel notes when a file was changed in a way that
only root can forge, so that a look at each file's facts tells it, without reading.
"""

import os
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path

_MOST_FILES = 50_000

Facts = dict[str, tuple[int, ...]]


@dataclass(eq=False)
class KeptTree:
    """A directory, and what its files were when it was kept. Raises ``OSError`` for one that can't be kept."""

    path: Path
    used_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._facts = facts(self.path)

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(size for _, size, *_ in self._facts.values())

    def is_intact(self) -> bool:
        """Whether nothing in it was changed, added or removed since."""
        try:
            return facts(self.path) == self._facts
        except OSError:
            return False


def facts(root: Path) -> Facts:
    """Return inode, size, mode and times of each file and link below a directory.

    Raises ``OSError`` where there is none, for too many, and for what is neither file, link nor directory.
    """
    found: Facts = {}
    pending = [str(root)]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                each = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(each.st_mode):
                    pending.append(entry.path)
                    found[entry.path] = (0, 0)
                elif stat.S_ISREG(each.st_mode) or stat.S_ISLNK(each.st_mode):
                    times = each.st_mtime_ns, each.st_ctime_ns
                    found[entry.path] = each.st_ino, each.st_size, each.st_mode, *times
                else:
                    raise OSError(f"{entry.path} is neither a file nor a directory")
        if len(found) > _MOST_FILES:
            raise OSError(f"{root} has more than {_MOST_FILES} files")
    return found
