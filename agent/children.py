"""The records of an agent's children, and what is left of those whose agent has died.

Every child is on record in a directory while it lives (:class:`~workers.protocol.agent_directory.ChildRecord`), so that
the agent's next process can go on with it, or end it with one SIGINT. The kernel does not tie a child to the agent's
process: a running apply would lose its state whenever an agent dies.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

from agent.files import read_regular, write_atomically
from workers.protocol.agent_directory import ENDED, ChildRecord, parse

_PAUSE = 0.05
_REST_SECONDS = 1.0


class ChildRecords:
    """The directory in which living children are on record."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def add(self, pid: int, run: str) -> None:
        """Put a child on record, in one step for readers."""
        ended_file(self.directory.parent, pid).unlink(missing_ok=True)
        self._write(ChildRecord(pid, process_started(pid) or 0.0, run))

    def interrupted(self, pid: int) -> None:
        """Note that a child gets its SIGINT."""
        if record := self._read(self.directory / str(pid)):
            self._write(replace(record, interrupted=True))

    def remove(self, pid: int) -> None:
        """Take a child that is gone off the record."""
        (self.directory / str(pid)).unlink(missing_ok=True)
        ended_file(self.directory.parent, pid).unlink(missing_ok=True)

    def of_run(self, run: str) -> ChildRecord | None:
        """Return the child that a previous process of this agent left of a run; it may have ended."""
        records = (self._read(path) for path in self._paths())
        return next((record for record in records if record and record.run == run), None)

    def leftovers(self, kept: int | None = None) -> dict[int, bool]:
        """Return the recorded processes that live, and whether each was sent its one SIGINT; without the one ``kept``.

        Of the others, what is left of their groups is killed.
        """
        living = {}
        for path in self._paths():
            record = self._read(path)
            if record and record.pid == kept:
                continue
            if record and lives(record):
                living[record.pid] = record.interrupted
                continue
            if record and process_started(record.pid) is None:
                # No other process gets the number while any of the group lives.
                kill_group(record.pid)
            with contextlib.suppress(OSError):  # a directory, which a configuration made
                self.remove(int(path.name))
        return living

    def exit_code(self, pid: int) -> int | None:
        """Return how a child ended whose parent was a process before this one; None where nobody saw it."""
        until = time.monotonic() + _REST_SECONDS
        path = ended_file(self.directory.parent, pid)
        # Its new parent writes that down before it lets go of the number.
        while not path.exists() and _exists(pid) and time.monotonic() < until:
            time.sleep(_PAUSE)
        with contextlib.suppress(OSError, ValueError):
            return int(read_regular(path))
        return None

    def _paths(self) -> Iterator[Path]:
        return (path for path in self.directory.iterdir() if path.name.isdecimal())

    def _read(self, path: Path) -> ChildRecord | None:
        with contextlib.suppress(OSError):
            return parse(path.name, read_regular(path))
        return None

    def _write(self, record: ChildRecord) -> None:
        write_atomically(self.directory / str(record.pid), record.content())


def lives(record: ChildRecord) -> bool:
    """Whether a child lives; another process may have its number by now."""
    return record.is_of(process_started(record.pid))


def ended_file(work_dir: Path, pid: int) -> Path:
    """Return where the exit code of a child is whose parent has died."""
    return work_dir / ENDED / str(pid)


def exit_code_of(ended: os.waitid_result) -> int:
    """Return the exit code of an ended process, negative for the signal that ended it."""
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def end_leftovers(records: ChildRecords, patience: float, kept: int | None = None) -> list[int]:
    """End the children that a previous process of this agent left running, but ``kept``; return their process ids.

    Each gets its one SIGINT, and ``patience`` seconds to store its state before it is killed.
    """
    leftovers = records.leftovers(kept)
    for pid, interrupted in leftovers.items():
        if not interrupted:
            records.interrupted(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
    until = time.monotonic() + patience
    while (left := records.leftovers(kept)) and time.monotonic() < until:
        time.sleep(_PAUSE)
    for pid in left:
        kill_group(pid)
    return list(leftovers)


def process_started(pid: int) -> float | None:
    """Return when a process was started, in seconds since the epoch, or None if there is no such process.

    Where the system does not tell (there is no ``/proc``), a living process was started at 0.
    """
    try:
        # The second field is the program's name in parentheses, and may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self").exists() or not _exists(pid) else 0.0
    if fields[0] == b"Z" and int(fields[17]) <= 1:  # one whose first thread has ended looks like it, too
        return None
    return _boot_time() + int(fields[19]) / os.sysconf("SC_CLK_TCK")


@cache
def _boot_time() -> float:
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    raise OSError("/proc/stat names no boot time")


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def wait_for_group(pid: int) -> None:
    """Wait until a killed group is gone; not for ever, since a zombie that is never reaped keeps its number."""
    until = time.monotonic() + _REST_SECONDS
    with contextlib.suppress(ProcessLookupError, PermissionError):
        while time.monotonic() < until:
            os.killpg(pid, 0)
            time.sleep(0.0005)


def kill_group(pid: int) -> None:
    """Kill a process group, if there is one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
