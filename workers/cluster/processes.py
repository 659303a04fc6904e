"""Processes by pid and start time: a pid alone is another process's later.

The start time is the kernel's; on Linux no change of the clock moves it. A zombie counts as gone. The records of its
children name what a dead agent left running (:mod:`workers.protocol.agent_directory`).
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from signal import SIGINT, SIGKILL, Signals
from typing import Protocol

import psutil

from workers.cluster import agent_files
from workers.cluster.system_user import SystemUser
from workers.protocol.agent_directory import ChildRecord, parse


@dataclass(frozen=True, slots=True)
class Process:
    """A process. ``started`` compares only with that of other processes from :func:`identify`."""

    pid: int
    started: str

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return identify(self.pid) == self

    def send(self, number: Signals) -> bool:
        """Send a signal to exactly this process. False: it is gone."""
        with suppress(ProcessLookupError):
            if self.alive:
                os.kill(self.pid, number)
                return True
        return False

    def exit_code(self) -> int | None:
        """Return the exit code, negative for a signal, of an ended child of this process.

        The first call returns it; later calls return None.
        """
        child = _CHILDREN.get(self)
        if child is None or child.poll() is None:
            return None
        _CHILDREN.pop(self, None)
        return child.returncode

    def is_on(self, record: ChildRecord) -> bool:
        """Whether this is the child on record, unless the clock was set since it started."""
        with suppress(psutil.NoSuchProcess):
            return record.is_of(psutil.Process(self.pid).create_time())
        return False


class Child(Protocol):
    """What is asked of a :class:`subprocess.Popen`."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None:
        """Return the exit code; None while it lives."""


_LONGEST_RECORD = 10_000  # bytes
# Children of this process, kept for their exit codes, and so that none stays a zombie.
_CHILDREN: dict[Process, Child] = {}


def start(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path,
    log: Path,
    keep: Sequence[int] = (),
    user: SystemUser | None = None,
) -> Process:
    """Start a process in a session of its own, without input, its output appended to ``log``.

    ``keep`` are descriptors that it inherits, ``user`` as whom it runs, if not as this process. Raises :class:`OSError`
    if it can't be started.
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
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=[] if user else None,
        )
    return of_child(child)


def of_child(child: Child) -> Process:
    """Return a child's process, which lives or has not been asked for its exit code, and keep the child for that."""
    process = Process(child.pid, _kernel(child.pid)[1])
    _CHILDREN[process] = child
    return process


def identify(pid: int) -> Process | None:
    """Return the process that has this pid now; None if none has, or a zombie. A zombie of this process is reaped."""
    with suppress(ProcessLookupError):
        state, started = _kernel(pid)
        if state not in "ZX":
            return Process(pid, started)
    for process, child in list(_CHILDREN.items()):
        if process.pid == pid:
            child.poll()
    return None


@dataclass(frozen=True, slots=True)
class OrphanedGroup:
    """The process group of a child whose agent is gone: its leader, if that lives, and all that live of it."""

    leader: Process | None
    members: tuple[Process, ...]
    interrupted: bool

    def interrupt(self) -> None:
        """Send the leader its one SIGINT, unless its agent has."""
        if self.leader and not self.interrupted:
            self.leader.send(SIGINT)

    def kill(self) -> None:
        """Kill the whole group: providers would outlive their terraform."""
        for member in self.members:
            member.send(SIGKILL)


def orphaned_groups(children: Path) -> list[OrphanedGroup]:
    """Return the living process groups of the children that this directory names."""
    files = sorted(children.glob("[0-9]*"))
    living = _groups() if files else {}
    return [group for file in files if (group := _orphaned_group(file, living))]


def _orphaned_group(file: Path, living: Mapping[int, Sequence[int]]) -> OrphanedGroup | None:
    try:
        content, owner = agent_files.read(file, _LONGEST_RECORD)
    except OSError:
        return None  # its agent lives, and has just removed it; or it is no record
    child = parse(file.name, content)
    if child is None:
        return None
    members = tuple(_owned(living.get(child.pid, ()), owner))
    leader = next((member for member in members if member.pid == child.pid), None)
    # The kernel gives the number of a group with members to no other process: where another process has it as its pid,
    # all of the group are gone.
    if not members or (leader and not leader.is_on(child)):
        return None
    return OrphanedGroup(leader, members, child.interrupted)


def _groups() -> dict[int, list[int]]:
    """Return the pids of all process groups: one look, however many records a configuration has written."""
    found: dict[int, list[int]] = {}
    for pid in psutil.pids():
        with suppress(ProcessLookupError, PermissionError):
            found.setdefault(os.getpgid(pid), []).append(pid)
    return found


def _owned(pids: Sequence[int], owner: int) -> Iterator[Process]:
    # What a configuration wrote may name any group: a record is about processes of its owner.
    for pid in pids:
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if psutil.Process(pid).uids().real == owner and (member := identify(pid)):
                yield member


def with_environment(name: str, value: str) -> Process | None:
    """Return a process of this user whose environment has ``name=value``; None if there is none."""
    for candidate in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if candidate.environ().get(name) == value:
                return identify(candidate.pid)
    return None


def _kernel(pid: int) -> tuple[str, str]:
    """Return the state's letter and the start time of a pid. Raises ProcessLookupError if no process has it."""
    if sys.platform == "linux":
        try:
            # The command's name may hold anything, a closing parenthesis too; state is the first field after it.
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            raise ProcessLookupError from None
        # A process whose first thread has ended looks like a zombie, but its other threads hold files and locks.
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
