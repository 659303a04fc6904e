"""Child processes: the only place that starts any, and the only one that signals them.

A child runs in a session of its own, so that no signal meant for the agent reaches it, and prints to files, so that it
needs no living reader. It is asked to stop by one SIGINT to the process itself, and never a second one, at which
Terraform abandons its state. SIGKILL goes to the whole group. When :meth:`Child.finish` returns, no process of the
group is left.

Every child is on record in a directory while it lives, as ``PID`` with JSON ``{"pid", "started", "run",
"interrupted"}``, so that the agent's next process can go on with it, or end it with one SIGINT. The kernel does not
tie a child to the agent's process: a running apply would lose its state whenever an agent dies.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from agent.command_output import CommandOutput, Sink
from agent.files import read_regular, write_atomically
from workers.protocol.children import ChildRecord, parse

_TICK = 0.05  # seconds: how late output and timeouts may be noticed; the end of a child is noticed at once
_REST_SECONDS = 1.0
_ENDED = "ended"


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
        records = (self._read(path) for path in self.directory.glob("[0-9]*"))
        return next((record for record in records if record and record.run == run), None)

    def leftovers(self, kept: int | None = None) -> dict[int, bool]:
        """Return the recorded processes that live, and whether each was sent its one SIGINT; without the one ``kept``.

        Of the others, what is left of their groups is killed.
        """
        living = {}
        for path in self.directory.glob("[0-9]*"):
            pid = int(path.name)
            if pid == kept:
                continue
            if record := self._read(path):
                if lives(record):
                    living[pid] = record.interrupted
                    continue
                if process_started(pid) is None:
                    # No other process gets the number while any of the group lives.
                    _kill_group(pid)
            self.remove(pid)
        return living

    def exit_code(self, pid: int) -> int | None:
        """Return how a child ended whose parent was a process before this one; None where nobody saw it."""
        until = time.monotonic() + _REST_SECONDS
        path = ended_file(self.directory.parent, pid)
        # Its new parent writes that down before it lets go of the number.
        while not path.exists() and _exists(pid) and time.monotonic() < until:
            time.sleep(_TICK)
        with contextlib.suppress(OSError, ValueError):
            return int(read_regular(path))
        return None

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
    return work_dir / _ENDED / str(pid)


class Child:
    """One child process. ``interrupt`` and ``kill`` may be called from any thread, at any time, any number of times.

    Raises ``OSError`` when the program can't be started.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        records: ChildRecords,
        run: str,
        output: CommandOutput,
    ) -> None:
        self._prepare(records, output)
        stdout, stderr = output.files
        try:
            self._process = subprocess.Popen(  # noqa: S603 - no shell, and the agent chooses the program
                list(argv),
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        except OSError:
            output.close()
            raise
        self.pid = self._process.pid
        try:
            records.add(self.pid, run)
        except OSError:
            self._reap()
            raise

    def _prepare(self, records: ChildRecords, output: CommandOutput) -> None:
        self._records = records
        self.output = output
        self._lock = threading.Lock()
        self._interrupted = False
        self._reaped = False

    def interrupt(self) -> None:
        """Send the one SIGINT, to the process and not to its group."""
        with self._lock:
            if not self._interrupted and not self._reaped:
                self._interrupted = True
                with contextlib.suppress(OSError):  # the signal is sent on a full disk, too
                    self._records.interrupted(self.pid)
                self._signal()

    def kill(self) -> None:
        """Send SIGKILL to the whole group."""
        with self._lock:
            if not self._reaped:
                _kill_group(self.pid)

    def finish(
        self, stdout: Sink, stderr: Sink, tick: Callable[[], None], ended: Callable[[int | None], None] | None = None
    ) -> int | None:
        """Pass on output until the process has ended, calling ``tick`` twenty times a second; return its exit code.

        A negative code is the signal that ended it; None: nobody saw how it ended. ``ended`` is told it first of all.
        What the process left behind in its group is killed.
        """
        try:
            with _Ending(self.pid) as ending:
                while not self._has_ended():
                    if not self.output.pass_on(stdout, stderr):
                        ending.wait(_TICK)
                    tick()
            code = self._exit_code()
            if ended:
                ended(code)
            self.kill()
            self.output.pass_on_rest(stdout, stderr)
        finally:
            self._reap()
        return code

    def _signal(self) -> None:
        os.kill(self.pid, signal.SIGINT)

    def _has_ended(self) -> bool:
        # Not reaped yet: until then no other process or group gets this number.
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None

    def _exit_code(self) -> int | None:
        found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        return None if found is None else exit_code_of(found)

    def _reap(self) -> None:
        with self._lock:
            if not self._has_ended():
                _kill_group(self.pid)
            self._process.wait()
            self._reaped = True
        self.output.close()
        _wait_for_group(self.pid)
        self._records.remove(self.pid)


class Adopted(Child):
    """A child that a previous process of this agent started, and whose output it followed so far.

    ``record`` is None for one that is known to have ended, with ``code``. Where nobody saw how it ended, it has
    succeeded if a line of its stdout begins with ``success``: that is its own word about its own run.
    """

    def __init__(
        self,
        record: ChildRecord | None,
        *,
        records: ChildRecords,
        output: CommandOutput,
        success: bytes,
        code: int | None,
    ) -> None:
        self._prepare(records, output)
        self._record = record if code is None else None
        self._success = success
        self._code = code
        self._interrupted = record is not None and record.interrupted
        self.pid = record.pid if record else 0

    def kill(self) -> None:
        """Send SIGKILL to the whole group, unless another process has its number by now."""
        if self._record and (lives(self._record) or process_started(self.pid) is None):
            super().kill()

    def _signal(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            if not self._has_ended():
                os.kill(self.pid, signal.SIGINT)

    def _has_ended(self) -> bool:
        return self._record is None or not lives(self._record)

    def _exit_code(self) -> int | None:
        if self._code is None:
            self._code = self._records.exit_code(self.pid)
        if self._code is None and self.output.says(self._success):
            self._code = 0
        return self._code

    def _reap(self) -> None:
        """Leave that to its parent."""
        self._reaped = True
        self.output.close()
        if self._record:
            _wait_for_group(self.pid)
            self._records.remove(self.pid)


class _Ending:
    """Waits for the end of a process, or for a time."""

    def __init__(self, pid: int) -> None:
        self._pause = 0.0005
        self._file: int | None = None
        with contextlib.suppress(OSError, AttributeError):  # not on macOS; or the process has ended
            self._file = os.pidfd_open(pid)

    def __enter__(self) -> _Ending:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            os.close(self._file)

    def wait(self, seconds: float) -> None:
        if self._file is not None:
            poll = select.poll()
            poll.register(self._file, select.POLLIN)
            poll.poll(seconds * 1000)
        else:
            time.sleep(self._pause)
            self._pause = min(seconds, 2 * self._pause)


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
        time.sleep(_TICK)
    for pid in left:
        _kill_group(pid)
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


def _wait_for_group(pid: int) -> None:
    """Wait until a killed group is gone; not for ever, since a zombie that is never reaped keeps its number."""
    until = time.monotonic() + _REST_SECONDS
    with contextlib.suppress(ProcessLookupError, PermissionError):
        while time.monotonic() < until:
            os.killpg(pid, 0)
            time.sleep(0.0005)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
