"""Files that the agent writes for other processes, files of a configuration that it reads, and its runs' directories.

A configuration may hold a link to a device or a pipe, which the agent would read for ever: only regular files are read.
"""

import errno
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable
from functools import cache
from pathlib import Path

from workers.protocol.agent_directory import RUNS

LIMIT = 16 * 2**20  # far above any configuration file


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file, which only its owner can read, in one step. Raises ``OSError``."""
    draft = path.with_name(f".{path.name}.draft")
    draft.unlink(missing_ok=True)  # a configuration may have put a pipe there, whose reader would be waited for
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
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


def relative_to(*directories: Path) -> Callable[[str], str]:
    """Return what makes absolute paths in a text relative to the innermost of these directories."""
    roots = {root for directory in directories for root in (str(directory), os.path.realpath(directory))}

    @cache
    def pattern() -> re.Pattern[str]:
        longest_first = "|".join(map(re.escape, sorted(roots, key=len, reverse=True)))
        return re.compile(rf"(?:{longest_first})(?:(/)|(?![\w-]|\.\w))")

    def relative(text: str) -> str:
        # Most texts name none of them, and to make the pattern takes longer than to start a program.
        if not any(root in text for root in roots):
            return text
        return pattern().sub(lambda found: "" if found[1] else ".", text)

    return relative


class RunDirectories:
    """The directories ``WORK_DIR/runs/RUN``: made by a plan, and kept by any process while an apply may need them."""

    def __init__(self, work_dir: Path) -> None:
        self._runs = work_dir / RUNS
        self._removed = work_dir / "removed"
        self._runs.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.rmtree(self._removed, ignore_errors=True)
        self._removed.mkdir(mode=0o700)

    def path(self, run: str) -> Path:
        """Return a run's directory, whether or not it exists."""
        return self._runs / run

    def runs(self) -> set[str]:
        """Return the runs that have one."""
        return {path.name for path in self._runs.iterdir()}

    def set_aside(self, run: str) -> None:
        """Move a run's directory away in one step, so that no phase sees half of it; :meth:`empty` deletes it."""
        if self.path(run).exists():
            self.path(run).rename(self._removed / uuid.uuid4().hex)

    def empty(self) -> None:
        """Delete what was moved away."""
        for path in list(self._removed.iterdir()):
            shutil.rmtree(path, ignore_errors=True)
