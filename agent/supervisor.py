"""The first process of an agent: it starts the worker, and starts it again beside what the dead one's Terraform does.

The worker is everything that an agent does. Where it is killed, Terraform goes on: the supervisor becomes its parent,
writes down how it ends, and the next worker reports that. A worker that no longer makes progress is killed for the next
one. What a command left behind becomes the supervisor's child and is killed (:mod:`agent.descendants`). Signals to stop
are passed on as one SIGTERM; the worker's own end, with nothing left, is the supervisor's end. The worker does not
outlive the supervisor: where that is killed, the pod is.

It imports as little as it can, does nothing that waits, and survives whatever a configuration has made of its files.
"""

import ctypes
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

from agent.children import ended_file, exit_code_of
from agent.command_output import bound_unread
from agent.descendants import REAPER
from agent.files import write_atomically
from agent.probe import read, stuck
from agent.spawner import become_subreaper
from workers.protocol.agent_directory import APPLY, CHILDREN, ENDED, RUNS

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
# Signals that the worker was sent, also before it had the time to look at them.
signals: SimpleQueue[int] = SimpleQueue()

_LOOK_SECONDS = 1.0
_LONGEST_PAUSE = 30.0
_STEADY_SECONDS = 60.0  # a worker that lived this long is started again without a pause
_PR_SET_PDEATHSIG = 1
_WORK_DIR = "TERRASLOT_WORK_DIR"


def supervise(work: Callable[[], int]) -> int:
    """Supervise a process that does ``work``, and return its exit code; in that process, return what ``work`` does."""
    supervisor = _Supervisor(Path(os.environ.get(_WORK_DIR) or os.devnull).expanduser().absolute())
    while (code := supervisor.start_worker()) is None:
        pass
    return work() if supervisor.is_worker else code


class _Supervisor:
    def __init__(self, work_dir: Path) -> None:
        self._work_dir = work_dir
        self._stopping = False
        self._pause = 0.0
        self._worker = 0
        self.is_worker = False
        self._awake, self._waker = os.pipe()
        for end in (self._awake, self._waker):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        for number in STOPPING:
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGUSR1, self._pass_on)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        become_subreaper()
        REAPER.pid = os.getpid()

    def start_worker(self) -> int | None:
        """Start a worker and wait for its end. Return an exit code, or None where another worker is to be started."""
        began, parent = time.monotonic(), os.getpid()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)  # each is for one of the two to handle
        told = self._stopping
        self._worker = os.fork()
        if self._worker == 0:
            self._become_worker(parent)
        REAPER.kept.add(self._worker or os.getpid())
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if self.is_worker:
            return 0
        if told:
            self._pass_on(signal.SIGTERM)
        code, self._worker = self._attend(began), 0
        # What has no record was started just now, and has not had the time to do anything.
        REAPER.end_orphans(spared=self._is_on_record)
        if code == 0 or not self._anything_left(code):
            self._end_all()
            return code if code >= 0 else 128 - code
        REAPER.keep_children(self._is_on_record)
        self._say(f"The agent's worker ended ({_how(code)}): starting it again.")
        if time.monotonic() - began > _STEADY_SECONDS:
            self._pause = 0.0
        self._rest(self._pause)
        self._pause = min(_LONGEST_PAUSE, 2 * self._pause or 1.0)
        return None

    def _become_worker(self, parent: int) -> None:
        self.is_worker = True
        signal.set_wakeup_fd(-1)
        for number in STOPPING:
            signal.signal(number, lambda number, _: signals.put(number))
        for number in (signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.close(self._awake)
        os.close(self._waker)
        if sys.platform == "linux":
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        else:
            threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
        if os.getppid() != parent:
            os._exit(1)

    def _attend(self, began: float) -> int:
        """Return the exit code of the worker, negative for a signal, once it has ended."""
        while (code := self._reap()) is None:
            self._wait(_LOOK_SECONDS)
            # The worker's own commands may have become children of this process at this moment: they are on record.
            REAPER.kill_orphans(spared=self._is_on_record)
            bound_unread(self._work_dir / RUNS)
            liveness = read(self._work_dir)
            if liveness and liveness.heartbeat_at > began and (why := stuck(liveness, time.monotonic())):
                self._say(f"The agent's worker makes no progress: {why}.")
                os.kill(self._worker, signal.SIGKILL)
        return code

    def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._stopping:
            self._reap()
            self._wait(min(left, _LOOK_SECONDS))
            bound_unread(self._work_dir / RUNS)

    def _wait(self, seconds: float) -> None:
        select.select([self._awake], [], [], seconds)
        with suppress(BlockingIOError):
            os.read(self._awake, 4096)

    def _reap(self) -> int | None:
        """Reap what has ended; return the exit code of the worker if it is among them."""
        found = None
        with suppress(ChildProcessError):
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                code = exit_code_of(ended)
                if ended.si_pid == self._worker:
                    found = code
                else:
                    self._note(ended.si_pid, code)
                os.waitpid(ended.si_pid, 0)
                REAPER.kept.discard(ended.si_pid)
        return found

    def _note(self, pid: int, code: int) -> None:
        """Write down how a child of a dead worker ended; its number is not given to another process before."""
        with suppress(OSError):
            if (self._work_dir / CHILDREN / str(pid)).exists():
                (self._work_dir / ENDED).mkdir(mode=0o700, exist_ok=True)
                write_atomically(ended_file(self._work_dir, pid), str(code))

    def _is_on_record(self, pid: int) -> bool:
        """Whether a child is a command of a worker that has died, for the next one to go on with or to end."""
        with suppress(OSError):
            return os.getsid(pid) == pid and (self._work_dir / CHILDREN / str(pid)).exists()
        return False

    def _end_all(self) -> None:
        """Leave nothing running, whatever a configuration has put on record: no worker comes after this."""
        REAPER.kept.clear()
        REAPER.end_orphans()
        self._reap()

    def _anything_left(self, code: int) -> bool:
        """Whether the end of the worker is no end of the agent's work."""
        with suppress(OSError):
            if (self._work_dir / APPLY).exists() or any((self._work_dir / CHILDREN).iterdir()):
                return True
        return code < 0 and not self._stopping

    def _on_stop(self, *_: object) -> None:
        if not self._stopping:
            self._stopping = True
            self._pass_on(signal.SIGTERM)

    def _pass_on(self, number: int, _frame: object = None) -> None:
        with suppress(ProcessLookupError):
            if self._worker:
                os.kill(self._worker, number)

    def _say(self, sentence: str) -> None:
        with suppress(OSError):  # on a full disk
            print(sentence, file=sys.stderr, flush=True)  # noqa: T201 - the worker's log is configured in the worker


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    """Set an attribute of this process, where the system is Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
