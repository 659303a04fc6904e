"""The process that an embedded system's components are forked from: ``python -P -m workers.embedded.nursery FD``.

It has loaded what they share, and holds nothing else: no thread, no connection, no lock and no secret that one of them
may not have. So a component starts at once, and what all have loaded is in memory once. Each runs as ``python -P -m
MODULE ARGS`` would, in a session of its own. :class:`Nursery` is the supervisor's side; the process ends with the
supervisor.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.cluster import process_log, processes
from workers.cluster.processes import Process
from workers.settings import settings

# What at least two components load.
_SHARED = (
    "alembic.command",
    "celery.apps.beat",
    "celery.apps.worker",
    "celery.backends.redis",
    "celery.concurrency.thread",
    "celery.worker.consumer",
    "kombu.transport.redis",
    "sqlalchemy.dialects.sqlite",
    "workers.reports",
    "workers.tasks",
)
# Seconds. A slow machine takes ten for all imports.
_PATIENCE = 60.0


class Nursery:
    """The supervisor's side: starts components, and knows how they ended."""

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        """Take the environment of the process itself: every component is a copy of it, the one without keys too."""
        self._home = home
        self._environment = environment
        self._process: Process | None = None
        self._connection: socket.socket | None = None

    def start(self, argv: Sequence[str], *, environment: Mapping[str, str], directory: Path, log: Path) -> Process:
        """Start ``python -P -m ARGV`` as :func:`processes.start` would. Raises :class:`OSError` if it can't be."""
        if self._connection is None or not (self._process and self._process.alive):
            self._begin()
        given = {"environment": dict(environment), "directory": str(directory), "log": str(log)}
        pid = self._ask({"start": list(argv), **given})
        if pid is None:
            why = process_log.last_line(self._log)
            raise OSError(0, f"what it is forked from has ended: {why or 'it said nothing'} See {self._log}")
        return processes.of_child(_Forked(pid, self))

    def exit_code(self, pid: int) -> int | None:
        """Return the exit code of a component that has ended; None while it lives, and where nobody knows."""
        return self._ask({"exit_code": pid})

    def close(self) -> None:
        """End the process; what it has started goes on."""
        if self._connection:
            self._connection.close()
            self._connection = None
        if self._process:
            self._process.send(signal.SIGKILL)

    @property
    def _log(self) -> Path:
        return self._home / "logs" / "nursery.log"

    def _begin(self) -> None:
        self.close()
        self._connection, theirs = socket.socketpair()
        self._connection.settimeout(_PATIENCE)
        process_log.bound(self._log)
        with theirs:
            self._process = processes.start(
                [sys.executable, "-P", "-m", __name__, str(theirs.fileno())],
                environment=self._environment, directory=self._home, log=self._log, keep=[theirs.fileno()],
            )  # fmt: skip

    def _ask(self, request: dict[str, Any]) -> int | None:
        """Return the answer; None if there is none any more."""
        try:
            if self._connection:
                self._connection.sendall(json.dumps(request).encode() + b"\n")
                answer: int | None = json.loads(self._connection.recv(64))
                return answer
        except (OSError, ValueError):
            self.close()  # what it says later would answer another question
        return None


@dataclass
class _Forked:
    """A component, with what :class:`subprocess.Popen` tells of a child."""

    pid: int
    nursery: Nursery
    returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self.nursery.exit_code(self.pid)
        return self.returncode


def main(end: int) -> None:
    """Fork what is asked for until the supervisor has ended; in a fork, be that component."""
    gc.disable()  # what is imported is no garbage, and looking for some takes a seventh of the time
    for name in _SHARED:
        importlib.import_module(name)
    gc.freeze()  # the collector writes to what it looks at, and what is written to is no longer shared
    gc.enable()
    if component := _serve(end):
        _become(component)
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _serve(end: int) -> dict[str, Any] | None:
    with socket.socket(fileno=end) as connection, connection.makefile("r") as lines:
        for line in lines:
            request = json.loads(line)
            if pid := request.get("exit_code"):
                answer = _exit_code(pid)
            else:
                answer = os.fork()
                if answer == 0:
                    return dict(request)
            connection.sendall(json.dumps(answer).encode())
    return None


def _exit_code(pid: int) -> int | None:
    with suppress(ChildProcessError):
        ended, status = os.waitpid(pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if ended else None
    return None


def _become(component: Mapping[str, Any]) -> None:
    """Take on what sets a component apart; its connection to the supervisor is closed already."""
    os.setsid()
    with open(component["log"], "ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.chdir(component["directory"])
    os.environ.clear()
    os.environ.update(component["environment"])
    settings.cache_clear()
    sys.argv = component["start"]
    if sys.platform == "linux":
        _name_process(Path(component["log"]).stem)


def _name_process(name: str) -> None:
    """Have ``ps`` and ``top`` show the component's name: its command line is the one of all."""
    import ctypes  # noqa: PLC0415 - of Linux alone

    ctypes.CDLL(None).prctl(15, f"ts-{name}".encode(), 0, 0, 0)  # PR_SET_NAME


if __name__ == "__main__":
    main(int(sys.argv[1]))
