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
_USUAL = 2**16  # room for the largest is not made for each


def fresh_directory(path: Path) -> None:
    """Make an empty directory, for its owner alone, in the place of the one that is there. Raises ``OSError``."""
    try:
        path.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(mode=0o700, parents=True)


def create(path: Path, content: str | bytes) -> None:
    """Write a new file, which only its owner can read, in the place of the one that is there. Raises ``OSError``."""
    path.unlink(missing_ok=True)  # a configuration may have put a pipe there, whose reader would be waited for
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file, which only its owner can read, in one step. Raises ``OSError``."""
    draft = path.with_name(f".{path.name}.draft")
    create(draft, content)
    draft.replace(path)


def copy_file(source: str | Path, target: str | Path) -> None:
    """Copy a regular file, with its mode and times, to where there is none. Raises ``OSError``.

    Half of what ``shutil.copy2`` costs for a small file: that looks up each path several times.
    """
    with open(source, "rb", buffering=0, opener=_without_waiting) as reader:
        found = os.fstat(reader.fileno())
        _require_regular(found, source)
        with open(target, "xb") as writer:
            shutil.copyfileobj(reader, writer)
            writer.flush()  # what is written later changes the time
            os.utime(writer.fileno(), ns=(found.st_atime_ns, found.st_mtime_ns))
            os.fchmod(writer.fileno(), stat.S_IMODE(found.st_mode))


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe that has taken its place is not waited for."""
    return os.open(path, flags | os.O_NONBLOCK)


def read_regular(path: str | Path) -> bytes:
    """Return what a file holds, links followed. Raises ``OSError`` for one that is not regular, or over ``LIMIT``."""
    _require_regular(os.stat(path), path)  # a device may do something when it is opened
    with open(path, "rb", opener=_without_waiting) as file:
        _require_regular(os.fstat(file.fileno()), path)
        content = file.read(_USUAL)
        if len(content) == _USUAL:
            content += file.read(LIMIT + 1 - _USUAL)
    if len(content) > LIMIT:
        raise OSError(errno.EFBIG, f"it is larger than {LIMIT // 2**20} MiB", str(path))
    return content


def read_inside(path: Path, tree: Path) -> bytes | None:
    """Return what a file holds, as :func:`read_regular`; None for one that lies outside of ``tree``, unread."""
    if is_inside(path, tree):
        return read_regular(path)
    _require_regular(os.stat(path), path)
    return None


def _require_regular(found: os.stat_result, path: str | Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))


def is_inside(path: Path, tree: Path) -> bool:
    """Whether a path stays in ``tree`` wherever its links lead."""
    return path == tree or Path(os.path.realpath(path)).is_relative_to(os.path.realpath(tree))


def relative_to(*directories: Path) -> Callable[[str], str]:
    """Return what makes absolute paths in a text relative to the innermost of these directories."""

    @cache
    def roots() -> set[str]:
        return {root for directory in directories for root in (str(directory), os.path.realpath(directory))}

    @cache
    def pattern() -> re.Pattern[str]:
        longest_first = "|".join(map(re.escape, sorted(roots(), key=len, reverse=True)))
        return re.compile(rf"(?:{longest_first})(?:(/)|(?![\w-]|\.\w))")

    def relative(text: str) -> str:
        # Most texts name no path, or none of these, and to make the pattern takes longer than to start a program.
        if "/" not in text or not any(root in text for root in roots()):
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
