"""A named pipe through which processes report that something began.

A file's time stamp would be no measure: the kernel takes it from a clock that may be some milliseconds behind.
"""

from __future__ import annotations

import os
import select
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PIPE = "BENCH_PIPE"


def say(path: str, line: str) -> None:
    """Write a line into a pipe that another process reads."""
    with open(path, "wb", buffering=0) as pipe:
        pipe.write(line.encode() + b"\n")


class Pipe:
    """The listening end."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._end = os.open(path, os.O_RDWR)

    def wait(self, seconds: float = 60) -> float:
        """Return the moment at which the next line arrived, in seconds of ``time.perf_counter``."""
        return self.wait_for(1, seconds)

    def line(self, seconds: float = 60) -> tuple[float, str]:
        """Return the next line, and the moment at which it arrived."""
        moment, line = 0.0, b""
        while not line.endswith(b"\n"):
            if not select.select([self._end], [], [], seconds)[0]:
                raise TimeoutError(f"no line arrived within {seconds:g} s")
            moment = moment or time.perf_counter()
            line += os.read(self._end, 1)
        return moment, line.decode().rstrip("\n")

    def wait_for(self, count: int, seconds: float = 60) -> float:
        """Wait for ``count`` lines, and return the moment at which the last of them arrived."""
        until = time.monotonic() + seconds
        while count > 0:
            if not select.select([self._end], [], [], max(0.0, until - time.monotonic()))[0]:
                raise TimeoutError(f"{count} lines did not arrive within {seconds:g} s")
            count -= os.read(self._end, 65_536).count(b"\n")
        return time.perf_counter()

    def drain(self) -> None:
        """Forget what has arrived."""
        while select.select([self._end], [], [], 0)[0]:
            os.read(self._end, 65_536)

    def close(self) -> None:
        os.close(self._end)


@contextmanager
def listening() -> Iterator[Pipe]:
    """Make a pipe, name it in the environment of processes that start meanwhile, and remove it afterwards."""
    with tempfile.TemporaryDirectory(prefix="terraslot-bench-") as directory:
        pipe = Pipe(Path(directory, "pipe"))
        os.environ[PIPE] = str(pipe.path)
        try:
            yield pipe
        finally:
            del os.environ[PIPE]
            pipe.close()
