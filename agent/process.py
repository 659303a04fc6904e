"""Child processes: the only place that starts any.

A child runs in a session of its own, so that no signal meant for the agent reaches it, and prints to files, so that it
needs no living reader. It is asked to stop by one SIGINT to the process itself, and never a second one, at which
Terraform abandons its state. SIGKILL goes to the whole group. When :meth:`Child.finish` returns, no process of the
group is left, and where the agent has its supervisor, no descendant in any other group either.
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
from pathlib import Path

from agent.children import ChildRecords, exit_code_of, kill_group, lives, process_started, wait_for_group
from agent.command_output import CommandOutput, Sink
from agent.descendants import REAPER
from agent.spawner import SPAWNER, Refused, Spawned, become_subreaper
from workers.protocol.agent_directory import ChildRecord

_TICK = 0.05  # seconds: how late output and timeouts may be noticed; the end of a child is noticed at once


def answer_of(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], seconds: float) -> bytes:
    """Return what a command of the agent's own prints. Raises ``OSError`` where it fails or takes too long."""
    try:
        done = subprocess.run(  # noqa: S603 - no shell, and the agent chooses the program
            list(argv), cwd=cwd, env=dict(env), stdin=subprocess.DEVNULL, capture_output=True, check=True,
            timeout=seconds,
        )  # fmt: skip
    except subprocess.SubprocessError as error:
        raise OSError(f"{argv[0]} does not answer: {error}") from error
    return done.stdout


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
            self._process = _start(argv, cwd=cwd, env=env, stdout=stdout, stderr=stderr)
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
                kill_group(self.pid)

    def end_first(self) -> None:
        """Have the kernel end it, and what it starts from now on, before anything else where memory is short."""
        with contextlib.suppress(OSError):  # it has ended; or not on macOS
            Path(f"/proc/{self.pid}/oom_score_adj").write_text("1000")

    def finish(
        self, stdout: Sink, stderr: Sink, tick: Callable[[], None], ended: Callable[[int | None], None] | None = None
    ) -> int | None:
        """Pass on output until the process has ended, calling ``tick`` twenty times a second; return its exit code.

        A negative code is the signal that ended it; None: nobody saw how it ended. ``ended`` is told it first of all.
        What the process left behind is killed.
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
            REAPER.end_orphans()
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
                kill_group(self.pid)
            self._process.wait()
            self._reaped = True
        self.output.close()
        wait_for_group(self.pid)
        REAPER.end_orphans()
        self._records.remove(self.pid)


def _start(
    argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdout: int, stderr: int
) -> Spawned | subprocess.Popen[bytes]:
    with contextlib.suppress(Refused):
        return SPAWNER.spawn(argv, cwd=cwd, env=env, stdout=stdout, stderr=stderr)
    return subprocess.Popen(  # noqa: S603 - no shell, and the agent chooses the program
        list(argv),
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
        preexec_fn=become_subreaper,  # noqa: PLW1509 - one system call, and what it needs was looked up before
    )


class Adopted(Child):
    """A child that a previous process of this agent started, and whose output it followed so far.

    ``record`` is None for one that is known to have ended, with ``code``. Where nobody saw how it ended, it has
    succeeded if a line of its stdout means ``success``: that is its own word about its own run.
    """

    def __init__(
        self,
        record: ChildRecord | None,
        *,
        records: ChildRecords,
        output: CommandOutput,
        success: Callable[[bytes], bool],
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
        """Leave that to its parent, which may be no process of this agent."""
        if not self._has_ended():
            kill_group(self.pid)
        self._reaped = True
        self.output.close()
        if self._record:
            wait_for_group(self.pid)
            REAPER.end_orphans()
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
