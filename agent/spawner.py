"""A small process of the agent's worker that forks for it. What it starts are the worker's own children all the same.

To fork the worker copies the page tables of everything that it has loaded, and much of the memory while the child is on
its way to another program: several milliseconds for each command of Terraform. So the worker forks once, before it has
loaded anything, and that process, the spawner, forks from then on. By ``CLONE_PARENT`` the kernel makes the worker the
parent, which waits for a child, signals and reaps it as if it had forked itself.

A child becomes its program once the worker knows its number. So whatever is lost on the way, a request, an answer or
either process, nothing runs that the worker does not know of. Without a spawner (it was killed, this is not Linux, the
kernel refuses) the worker forks itself.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import signal
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

from agent.descendants import become_subreaper

_CLONE_PARENT = 0x8000
_CLONE = {"x86_64": 56, "aarch64": 220}.get(platform.machine()) if sys.platform == "linux" else None
_BYTES = 4  # of the number before a request, of an answer, of an error
_FILES = 4  # that come with a request: stdout, stderr, the word to begin, and where an error is written
_PATIENCE = 5.0  # seconds; an answer takes one or two milliseconds


_Request = tuple[list[str], str, dict[str, str]]  # the program, where, and in which environment


class Refused(Exception):
    """There is no spawner, or it can't fork: nothing was started."""


class Spawned(NamedTuple):
    """A child of this process."""

    pid: int

    def wait(self) -> None:
        """Wait for its end, and reap it."""
        os.waitpid(self.pid, 0)


class Spawner:
    """The worker's side of it; safe from any thread."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Fork the spawner. To be called while this process has no threads and has loaded little."""
        if _CLONE is None:
            return
        self._socket, its_own = socket.socketpair()
        if os.fork() == 0:
            self._socket.close()
            _serve(its_own, _CLONE)
        its_own.close()
        self._socket.settimeout(_PATIENCE)

    def spawn(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdout: int, stderr: int) -> Spawned:
        """Start a program without input, in a session of its own and as a subreaper.

        Raises ``OSError`` where it can't be started, and :class:`Refused`.
        """
        request = json.dumps([list(argv), str(cwd), dict(env)]).encode()
        begin, word = os.pipe()
        told, error = os.pipe()
        try:
            spawned = Spawned(self._ask(request, (stdout, stderr, begin, error)))
            os.close(error)
            error = -1
            os.write(word, b".")
            number = int.from_bytes(os.read(told, _BYTES))
        finally:
            for file in {begin, word, told, error} - {-1}:
                os.close(file)
        if number:
            spawned.wait()
            raise OSError(number, os.strerror(number), argv[0])
        return spawned

    def _ask(self, request: bytes, files: Sequence[int]) -> int:
        with self._lock:
            if self._socket is None:
                raise Refused
            try:
                socket.send_fds(self._socket, [len(request).to_bytes(_BYTES)], files)
                self._socket.sendall(request)
                pid = int.from_bytes(self._socket.recv(_BYTES))
            except OSError:
                pid = 0
            if not pid:
                self._socket.close()
                self._socket = None
                raise Refused
            return pid


def _serve(worker: socket.socket, clone: int) -> NoReturn:
    """Fork for the worker until it has ended."""
    with suppress(BaseException):
        _hand_down_nothing()
        stdin = os.open(os.devnull, os.O_RDONLY)
        system = ctypes.PyDLL(None)
        while True:
            length, files, _, _ = socket.recv_fds(worker, _BYTES, _FILES)
            for file in files:
                os.set_inheritable(file, False)
            stdout, stderr, begin, error = files  # fails where there is no room for all of them, or the worker is gone
            request = json.loads(_received(worker, int.from_bytes(length)))
            pid = system.syscall(clone, _CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)
            if pid == 0:
                worker.close()
                _become(request, (stdin, stdout, stderr), begin, error)
            for file in files:
                os.close(file)
            worker.sendall(max(0, pid).to_bytes(_BYTES))
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


def _received(worker: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size and (more := worker.recv(size - len(received))):
        received += more
    return received


def _become(request: _Request, standard: Sequence[int], begin: int, error: int) -> NoReturn:
    """Become the program, once the worker gives the word."""
    argv, cwd, env = request
    try:
        become_subreaper()
        os.setsid()
        for target, file in enumerate(standard):
            os.dup2(file, target)
        os.chdir(cwd)
        if os.read(begin, 1):
            os.execvpe(argv[0], argv, env)  # noqa: S606 - no shell, and the agent chooses the program
    except (OSError, ValueError) as why:  # ValueError: what no program can be given
        os.write(error, (getattr(why, "errno", None) or errno.EINVAL).to_bytes(_BYTES))
    finally:
        os._exit(127)


SPAWNER = Spawner()
