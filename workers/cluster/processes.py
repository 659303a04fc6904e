"""Processes by identity: a pid alone may belong to somebody else tomorrow.

A process is named by its pid and its start time as the kernel tells it, which on Linux no change of the clock moves.
A zombie is gone: it does nothing any more.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Process:
    """One life of a pid. ``started`` is comparable only with what :func:`identify` says of other processes."""

    pid: int
    started: str

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return identify(self.pid) == self

    def send(self, number: signal.Signals) -> bool:
        """Send a signal to exactly this process. False: it is gone."""
        with suppress(ProcessLookupError):
            if self.alive:
                os.kill(self.pid, number)
                return True
        return False

    def exit_code(self) -> int | None:
        """Return the exit code, negative for a signal, if this was a child of this very process and has ended.

        It is told once: the first to ask writes it down.
        """
        child = _CHILDREN.get(self)
        if child is None or child.poll() is None:
            return None
        _CHILDREN.pop(self, None)
        return child.returncode

    def started_at(self, moment: float) -> bool:
        """Whether it started at this time, in seconds since the epoch, as far as the clock was not set since."""
        with suppress(psutil.NoSuchProcess):
            return abs(psutil.Process(self.pid).create_time() - moment) <= _CLOCK_ROUNDING
        return False


# Linux tells when it booted in whole seconds, rounded anew at every reading.
_CLOCK_ROUNDING = 1.5

# Children of this process, kept so that their exit codes can be told and none stays a zombie.
_CHILDREN: dict[Process, subprocess.Popen[bytes]] = {}


def start(
    argv: Sequence[str], *, environment: Mapping[str, str], directory: Path, log: Path, keep: Sequence[int] = ()
) -> Process:
    """Start a process in a session of its own, without input, its output appended to ``log``.

    ``keep`` are descriptors that it inherits. Raises :class:`OSError` if it can't be started.
    """
    with log.open("ab") as output:
        child = subprocess.Popen(  # noqa: S603 - an argv of our own, and no shell
            argv,
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=tuple(keep),
        )
    process = Process(child.pid, _kernel(child.pid)[1])
    _CHILDREN[process] = child
    return process


def identify(pid: int) -> Process | None:
    """Return the process that has this pid now; None if none has, or only a zombie. One of our own is buried."""
    with suppress(ProcessLookupError):
        state, started = _kernel(pid)
        if state not in "ZX":
            return Process(pid, started)
    for process, child in list(_CHILDREN.items()):
        if process.pid == pid:
            child.poll()
    return None


def group(number: int) -> list[Process]:
    """Return what lives of a process group."""
    found = []
    for pid in psutil.pids():
        with suppress(ProcessLookupError, PermissionError):
            if os.getpgid(pid) == number and (member := identify(pid)):
                found.append(member)
    return found


def with_environment(name: str, value: str) -> Process | None:
    """Return a process of this user whose environment says ``name=value``; None if there is none."""
    for candidate in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if candidate.environ().get(name) == value:
                return identify(candidate.pid)
    return None


def _kernel(pid: int) -> tuple[str, str]:
    """Return the state's letter and the start time of a pid. Raises ProcessLookupError if nothing has it."""
    if sys.platform == "linux":
        try:
            # The command's name may hold anything, a closing parenthesis too; state is the first field after it.
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            raise ProcessLookupError from None
        # The first thread of a process may have ended before the others: what they hold is held.
        state = "R" if int(fields[17]) > 1 else fields[0]
        return state, f"{_boot()}.{fields[19]}"
    try:
        process = psutil.Process(pid)
        return "Z" if process.status() == psutil.STATUS_ZOMBIE else "R", repr(process.create_time())
    except psutil.NoSuchProcess:
        raise ProcessLookupError from None


@cache
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
