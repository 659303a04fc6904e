"""Child processes: the only place that starts any, and the only one that signals them.

A child runs in a session of its own, so that no signal meant for the agent reaches it. It is asked to stop by one
SIGINT to the process itself, and never a second one, at which Terraform abandons its state. SIGKILL goes to the whole
group. When :meth:`Child.finish` returns, no process of the group is left.

Every child is on record in a directory while it lives, as ``PID`` with JSON ``{"pid", "started", "run",
"interrupted"}``, so that the children of a dead agent can be ended, also with one SIGINT. The kernel does not tie
a child to the agent's process: a running apply would lose its state whenever an agent dies.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from agent.files import write_atomically

Sink = Callable[[bytes], None]

_CHUNK = 65_536  # a pipe's size on Linux
_TICK = 0.1  # seconds: how late a timeout may be noticed
_CLOSED_PAUSE = 0.0005
_REST_SECONDS = 1.0


class ChildRecords:
    """The directory in which living children are on record."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def add(self, pid: int, run: str) -> None:
        """Put a child on record, in one step for readers."""
        self._write({"pid": pid, "started": process_started(pid), "run": run, "interrupted": False})

    def interrupted(self, pid: int) -> None:
        """Note that a child gets its SIGINT."""
        self._write({**self._read(pid), "interrupted": True})

    def remove(self, pid: int) -> None:
        """Take a child that is gone off the record."""
        (self.directory / str(pid)).unlink(missing_ok=True)

    def leftovers(self) -> dict[int, bool]:
        """Return the recorded processes that live, and whether each was sent its one SIGINT.

        Of the others, what is left of their groups is killed.
        """
        living = {}
        for path in self.directory.glob("[0-9]*"):
            pid = int(path.name)
            with contextlib.suppress(OSError, ValueError, KeyError):
                record = self._read(pid)
                started = process_started(pid)
                if _same_time(started, record["started"]):
                    living[pid] = bool(record["interrupted"])
                    continue
                if started is None:
                    # No other process gets the number while any of the group lives.
                    _kill_group(pid)
            path.unlink(missing_ok=True)
        return living

    def _read(self, pid: int) -> dict[str, Any]:
        record: dict[str, Any] = json.loads((self.directory / str(pid)).read_text())
        return record

    def _write(self, record: dict[str, Any]) -> None:
        write_atomically(self.directory / str(record["pid"]), json.dumps(record))


class Child:
    """One child process. ``interrupt`` and ``kill`` may be called from any thread, at any time, any number of times.

    Raises ``OSError`` when the program can't be started.
    """

    def __init__(
        self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], records: ChildRecords, run: str
    ) -> None:
        self._records = records
        self._lock = threading.Lock()
        self._interrupted = False
        self._reaped = False
        self._process = subprocess.Popen(  # noqa: S603 - no shell, and the agent chooses the program
            list(argv),
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )
        self.pid = self._process.pid
        try:
            records.add(self.pid, run)
        except OSError:
            self._reap()
            raise

    def interrupt(self) -> None:
        """Send the one SIGINT, to the process and not to its group."""
        with self._lock:
            if not self._interrupted and not self._reaped:
                self._interrupted = True
                with contextlib.suppress(OSError):  # the signal is sent on a full disk, too
                    self._records.interrupted(self.pid)
                os.kill(self.pid, signal.SIGINT)

    def kill(self) -> None:
        """Send SIGKILL to the whole group."""
        with self._lock:
            if not self._reaped:
                _kill_group(self.pid)

    def finish(self, stdout: Sink, stderr: Sink, tick: Callable[[], None]) -> int:
        """Pass on output until the process has ended, calling ``tick`` ten times a second; return its exit code.

        A negative code is the signal that ended it. What the process left behind in its group is killed.
        """
        try:
            with selectors.DefaultSelector() as selector:
                self._watch(selector, stdout, stderr)
                closed_pause = _CLOSED_PAUSE
                while not self._has_ended():
                    # Both pipes are closed: most processes end now, a few go on.
                    closed_pause = _CLOSED_PAUSE if selector.get_map() else min(_TICK, 2 * closed_pause)
                    for key, _ in selector.select(_TICK if selector.get_map() else closed_pause):
                        self._pass_on(selector, key)
                    tick()
                self.kill()
                self._pass_on_rest(selector)
        finally:
            self._reap()
        return self._process.returncode

    def _watch(self, selector: selectors.BaseSelector, stdout: Sink, stderr: Sink) -> None:
        for pipe, sink in ((self._process.stdout, stdout), (self._process.stderr, stderr)):
            assert pipe is not None  # noqa: S101 - Popen was asked for both
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_READ, sink)

    def _pass_on(self, selector: selectors.BaseSelector, key: selectors.SelectorKey) -> bool:
        """Pass one chunk on; False when there was none."""
        try:
            chunk = os.read(key.fd, _CHUNK)
        except BlockingIOError:
            return False
        if chunk:
            key.data(chunk)
        else:
            selector.unregister(key.fileobj)
        return bool(chunk)

    def _pass_on_rest(self, selector: selectors.BaseSelector) -> None:
        # A process that left the group may hold the pipes open, and write to them without end.
        until = time.monotonic() + _REST_SECONDS
        for key in list(selector.get_map().values()):
            while self._pass_on(selector, key) and time.monotonic() < until:
                pass

    def _has_ended(self) -> bool:
        # Not reaped yet: until then no other process or group gets this number.
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None

    def _reap(self) -> None:
        with self._lock, self._process:  # its end closes the pipes and waits, still under the lock
            if not self._has_ended():
                _kill_group(self.pid)
            self._reaped = True
        _wait_for_group(self.pid)
        self._records.remove(self.pid)


def end_leftovers(records: ChildRecords, patience: float) -> list[int]:
    """End the children that a previous process of this agent left running, and return their process ids.

    Each gets its one SIGINT, and ``patience`` seconds to store its state before it is killed.
    """
    leftovers = records.leftovers()
    for pid, interrupted in leftovers.items():
        if not interrupted:
            records.interrupted(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
    until = time.monotonic() + patience
    while (left := records.leftovers()) and time.monotonic() < until:
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
    if fields[0] == b"Z":
        return None
    return _boot_time() + int(fields[19]) / os.sysconf("SC_CLK_TCK")


@cache
def _boot_time() -> float:
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    raise OSError("/proc/stat names no boot time")


def _same_time(found: float | None, recorded: float | None) -> bool:
    # The kernel's boot time is rounded to a second anew at every reading.
    return found is not None and recorded is not None and abs(found - recorded) <= 1.5  # noqa: PLR2004


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
            time.sleep(_CLOSED_PAUSE)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
