"""A small process of the agent's worker that forks for it. What it forks are the worker's own children all the same.

To fork the worker copies the page tables of everything that it has loaded, and much of the memory while the child is on
its way to another program: several milliseconds for each command of Terraform. So a program that loads next to nothing,
the spawner, which is this module, forks in its place. By ``CLONE_PARENT`` the kernel makes the worker the parent, which
waits for a child, signals and reaps it as if it had forked itself.

Even the spawner takes a millisecond to fork. So it does it ahead of time: some children, the spares, wait to be told
which program they are to be. So whatever is lost on the way, a request or any of the processes, nothing runs that the
worker does not know of. Without a spawner (it was killed, this is not Linux, the kernel refuses) the worker forks
itself.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import socket
import sys
import threading
from contextlib import suppress

# Every child copies what this program has loaded.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import NoReturn

_PR_SET_CHILD_SUBREAPER = 36
_CLONE_PARENT = 0x8000
_CLONE = {"x86_64": 56, "aarch64": 220}.get(os.uname().machine) if sys.platform == "linux" else None
_BYTES = 4  # of a process id, of the number before a request, of an error
_PATIENCE = 5.0  # seconds; to fork, and to understand a request, take some milliseconds
_PATIENCE_TO_BEGIN = 60.0  # seconds; a program, or its directory, may be on a slow disk
_SPARES = 2  # an apply, and what tells what its plan does, start at the same time
_ANOTHER = b"."  # asks the spawner for a spare
_UNDERSTOOD = b"+"  # what a spare says before it becomes its program

# Looked up before any fork: between fork and exec, a process of several threads may do next to nothing.
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def become_subreaper() -> None:
    """Make this process, and the program that it becomes by ``exec``, the parent of descendants whose own has ended."""
    if _prctl is not None:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Refused(Exception):
    """There is no spawner, or it can't fork: nothing was started."""


class Spawned:
    """A child of this process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def wait(self) -> None:
        """Wait for its end, and reap it."""
        os.waitpid(self.pid, 0)


class Spawner:
    """The worker's side of it; safe from any thread."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the spawner."""
        if _CLONE is None:
            return
        self._socket, its_own = socket.socketpair()
        self._socket.settimeout(_PATIENCE)
        # There may be no room for a process, or Python was upgraded meanwhile: then nobody answers.
        with its_own, suppress(OSError):
            its_own.set_inheritable(True)
            program = [sys.executable, "-I", "-S", __file__, str(its_own.fileno())]
            os.posix_spawn(sys.executable, program, os.environ)
            self._socket.send(_SPARES * _ANOTHER)

    def spawn(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdout: int, stderr: int) -> Spawned:
        """Start a program without input, in a session of its own and as a subreaper.

        Raises ``OSError`` where it can't be started, and :class:`Refused`.
        """
        request = json.dumps([list(argv), str(cwd), dict(env)]).encode()
        spare, connection = self._take_spare()
        with connection:
            answer = _answer(spare, connection, request, (stdout, stderr))
        if answer == _UNDERSTOOD:
            return spare
        spare.wait()
        if not answer:
            raise Refused
        number = int.from_bytes(answer.removeprefix(_UNDERSTOOD))
        raise OSError(number, os.strerror(number), argv[0])

    def _take_spare(self) -> tuple[Spawned, socket.socket]:
        """Return a child that waits, with the connection to it, and have the spawner fork another one."""
        with self._lock:
            if self._socket is None:
                raise Refused
            number, files = b"", list[int]()
            with suppress(OSError):
                number, files = _with_files(self._socket, 1)
                self._socket.send(_ANOTHER)
            if files:
                return Spawned(int.from_bytes(number)), socket.socket(fileno=files[0])
            self._socket.close()
            self._socket = None
            if number:  # there was no room for the connection: with that it ends, unless it stands still
                os.kill(int.from_bytes(number), signal.SIGKILL)
                Spawned(int.from_bytes(number)).wait()
            raise Refused


def _answer(spare: Spawned, connection: socket.socket, request: bytes, files: Sequence[int]) -> bytes:
    """Return all that a spare says to a request before it has become its program or has ended.

    That is :data:`_UNDERSTOOD`, with the number of an error after it where the program can't be started. One that
    stands still is killed: before it has understood nothing has begun, and later its program ends by that signal.
    """
    answer = b""
    with suppress(OSError):  # it was killed, or stands still
        connection.settimeout(_PATIENCE)
        socket.send_fds(connection, [len(request).to_bytes(_BYTES)], files)
        connection.sendall(request)
        if answer := connection.recv(len(_UNDERSTOOD)):
            connection.settimeout(_PATIENCE_TO_BEGIN)
            return answer + _received(connection, _BYTES)
    os.kill(spare.pid, signal.SIGKILL)  # or it might begin yet
    connection.settimeout(None)
    with suppress(OSError):
        answer = answer or connection.recv(len(_UNDERSTOOD))
        answer += _received(connection, _BYTES)
    return answer


def _serve(worker: socket.socket, clone: int) -> NoReturn:
    """Fork a spare for the worker whenever it asks for one, until it has ended."""
    with suppress(BaseException):
        _hand_down_nothing()
        stdin = os.open(os.devnull, os.O_RDONLY)
        system = ctypes.PyDLL(None)
        while worker.recv(len(_ANOTHER)):
            connection, its_own = socket.socketpair()
            pid = system.syscall(clone, _CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)
            if pid < 0:
                break
            if pid == 0:
                worker.close()
                connection.close()
                _wait_to_become(its_own, stdin)
            its_own.close()
            with connection:
                socket.send_fds(worker, [pid.to_bytes(_BYTES)], [connection.fileno()])
    os._exit(127)  # nor may a child come here and say that its program has succeeded


def _hand_down_nothing() -> None:
    """Let children have the signals as a system has them, and no files; and end by none of those signals."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
        with suppress(OSError, ValueError):
            # A signal that is ignored is ignored by a child as well, one that is handled is not.
            signal.signal(number, lambda *_: None)
    for file in set(map(int, os.listdir("/proc/self/fd"))) - {0, 1, 2}:
        with suppress(OSError):  # that of the list itself
            os.set_inheritable(file, False)


def _with_files(connection: socket.socket, count: int) -> tuple[bytes, list[int]]:
    """Return a number, and as many of the files that come with it as there is room for; no program inherits them."""
    number, files, *_ = socket.recv_fds(connection, _BYTES, count)
    for file in files:
        os.set_inheritable(file, False)
    return number, files


def _received(connection: socket.socket, size: int) -> bytes:
    """Return the next bytes, fewer where the other side ends before."""
    received = b""
    while len(received) < size and (more := connection.recv(size - len(received))):
        received += more
    return received


def _wait_to_become(worker: socket.socket, stdin: int) -> NoReturn:
    """Become the program that the worker names, when it does; end where the worker has ended."""
    try:
        become_subreaper()
        os.setsid()
        argv, cwd, env, files = _request(worker)
        worker.sendall(_UNDERSTOOD)
        try:
            for target, file in enumerate((stdin, *files)):
                os.dup2(file, target)
            os.chdir(cwd)
            os.execvpe(argv[0], argv, env)  # noqa: S606 - no shell, and the agent chooses the program
        except (OSError, ValueError) as why:  # ValueError: what no program can be given
            worker.sendall((getattr(why, "errno", None) or errno.EINVAL).to_bytes(_BYTES))
    finally:
        os._exit(127)


def _request(worker: socket.socket) -> tuple[list[str], str, dict[str, str], tuple[int, int]]:
    """Return the program, where, in which environment, and its files. Raises where the worker has ended."""
    length, files = _with_files(worker, 2)
    stdout, stderr = files  # fails where there is no room for both
    argv, cwd, env = json.loads(_received(worker, int.from_bytes(length)))
    return argv, cwd, env, (stdout, stderr)


SPAWNER = Spawner()

if __name__ == "__main__" and _CLONE is not None:
    _serve(socket.socket(fileno=int(sys.argv[1])), _CLONE)
