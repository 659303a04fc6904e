"""What a command prints goes to files, so that it needs no living reader: Terraform outlives an agent that dies.

A command has two files, ``NAME.out`` and ``NAME.err``. It appends to them, and the agent follows: what was read is
given back to the disk, and of what waits to be read only the newest ``MAX_UNREAD`` bytes stay. Of a command that the
agent's next process goes on with, ``NAME.read`` says how far the agent has read. On a full disk Terraform's output is
lost, and Terraform goes on.

A configuration runs as its agent does and may replace these files while no process of the agent has them open: only
regular files are opened, and nothing is waited for.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

Sink = Callable[[bytes], None]

DIRECTORY = "output"  # in a run's directory
MAX_UNREAD = 8 * 2**20
_GIVE_BACK = 2**20
_CHUNK = 65_536
_POSITIONS = struct.Struct("<QQ")
_KEEP_SIZE_PUNCH_HOLE = 0x01 | 0x02  # Linux: FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE


class CommandOutput:
    """The files of one command, new ones or those that a previous process of the agent left. Raises ``OSError``.

    ``keep_stdout``: stdout is a result for the agent, kept as a whole in :attr:`stdout`, up to that many bytes.
    ``resumable``: a next process of the agent may read on. ``files``: what the command has as its stdout and stderr.
    """

    def __init__(
        self, directory: Path, name: str, *, keep_stdout: int | None = None, resumable: bool = True, again: bool = False
    ) -> None:
        self.stdout = directory / f"{name}.{'out' if keep_stdout is None else 'kept'}"
        self._limit = keep_stdout
        self._opened: list[int] = []
        opened = open_regular if again else _create
        try:
            for path, flags in ((self.stdout, os.O_APPEND), (directory / f"{name}.err", os.O_APPEND)):
                self._opened.append(opened(path, flags))
            if resumable:
                self._opened.append(opened(directory / f"{name}.read", 0))
        except OSError:
            self.close()
            raise
        self.files = self._opened[:2]
        self._read = self._opened[2] if resumable else None
        self._streams = [_Stream(file) for file in self.files]
        if again and self._read is not None:
            self._go_on(self._read)

    def _go_on(self, read: int) -> None:
        with suppress(struct.error):  # a configuration may have emptied the file
            positions = _POSITIONS.unpack(os.pread(read, _POSITIONS.size, 0))
            for stream, position in zip(self._streams, positions, strict=True):
                stream.position = min(position, stream.size)

    def pass_on(self, stdout: Sink, stderr: Sink) -> bool:
        """Pass on the next piece of each stream; False where there was none."""
        pairs = zip(self._streams, (stdout, stderr), strict=True)
        if self._limit is not None:
            next(pairs)
            if self._streams[0].size > self._limit:
                raise OSError(errno.EFBIG, f"it printed more than {self._limit} bytes", str(self.stdout))
        passed = [stream.pass_on(sink) for stream, sink in pairs]
        if any(passed) and self._read is not None:
            with suppress(OSError):  # on a full disk, a next process would begin anew
                os.pwrite(self._read, _POSITIONS.pack(*(stream.position for stream in self._streams)), 0)
        return any(passed)

    def pass_on_rest(self, stdout: Sink, stderr: Sink) -> None:
        """Pass on what there is. A process that left the command's group may write without end: not what comes now."""
        until = sum(stream.size for stream in self._streams)
        while sum(stream.position for stream in self._streams) < until and self.pass_on(stdout, stderr):
            pass

    def pass_on_again(self, stdout: Sink, stderr: Sink) -> None:
        """Pass on what a previous process has read, as far as it is still there."""
        for stream, sink in zip(self._streams, (stdout, stderr), strict=True):
            stream.again(sink)

    def says(self, success: Callable[[bytes], bool]) -> bool:
        """Whether a line of stdout means success, among those that are still there."""
        found: list[bytes] = []
        self._streams[0].again(found.append, unread=True)
        return any(map(success, b"".join(found).split(b"\n")))

    def close(self) -> None:
        """Close the files; the command has them open for itself."""
        while self._opened:
            os.close(self._opened.pop())


class _Stream:
    """A file that grows, and how far it was read."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._freed = 0
        self.position = 0

    @property
    def size(self) -> int:
        return os.fstat(self._file).st_size

    def pass_on(self, sink: Sink) -> bool:
        unread = self.size - self.position
        if unread < 0:
            self.position = self._freed = 0  # it was emptied, see free_beginning
        elif unread > MAX_UNREAD:
            self._skip(unread - MAX_UNREAD // 2, sink)
        chunk = os.pread(self._file, _CHUNK, self.position)
        if chunk:
            self.position += len(chunk)
            sink(chunk)
        if self.position - self._freed >= _GIVE_BACK:
            self._give_back()
        return bool(chunk)

    def _skip(self, count: int, sink: Sink) -> None:
        self.position += count
        sink(f"\n… {count} bytes are missing: they came faster than the log takes them …\n".encode())

    def _give_back(self) -> None:
        self._freed = self.position
        if not free_beginning(self._file, self.position) and self.position == self.size:
            os.ftruncate(self._file, 0)

    def again(self, sink: Sink, *, unread: bool = False) -> None:
        at = max(0, self.position - _GIVE_BACK)  # before that it may be given back
        end = self.size if unread else self.position
        while at < end and (chunk := os.pread(self._file, min(_CHUNK, end - at), at)):
            at += len(chunk)
            sink(chunk)


def _create(path: Path, flags: int) -> int:
    """Create a file, in the place of whatever a configuration has put there, and open it to read and write."""
    flags |= os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        path.unlink()
    return os.open(path, flags, 0o600)


def open_regular(path: Path, flags: int = 0) -> int:
    """Open a regular file to read and write, and nothing else that stands in its place. Raises ``OSError``."""
    file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    os.set_blocking(file, True)
    return file


def free_beginning(file: int, end: int) -> bool:
    """Give a file's first ``end`` bytes back to the disk; its length and all positions stay. False: not possible."""
    fallocate = _fallocate()
    return fallocate is not None and fallocate(file, _KEEP_SIZE_PUNCH_HOLE, 0, end) == 0


@cache
def _fallocate() -> Any:
    library = ctypes.CDLL(None)
    function = getattr(library, "fallocate64", None) or getattr(library, "fallocate", None)
    if function is not None:
        function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return function


def bound_unread(run_directories: Path) -> None:
    """Bound the files that nobody follows, while the agent's worker stands still or is started again."""
    with suppress(OSError):  # a configuration may have made anything of the directories
        for path in run_directories.glob(f"*/{DIRECTORY}/*"):
            if path.suffix in (".out", ".err"):
                with suppress(OSError):
                    _bound(path)


def _bound(path: Path) -> None:
    file = open_regular(path)
    try:
        found = os.fstat(file)
        if found.st_blocks * 512 > 2 * MAX_UNREAD and not free_beginning(file, found.st_size - MAX_UNREAD):
            os.ftruncate(file, 0)
    finally:
        os.close(file)
