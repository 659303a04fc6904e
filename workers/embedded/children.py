"""The processes of the embedded system: how each is started, when it is ready, and how often it may die."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from workers.cluster import process_log, processes
from workers.cluster.processes import Process
from workers.embedded.options import Options, environment
from workers.embedded.role import BEAT, CONTROL, REPORTS, node
from workers.embedded.valkey import Valkey
from workers.protocol.errors import Unavailable

VALKEY, FLOWER = "valkey", "flower"
_PYTHON = (sys.executable, "-P", "-m")
_PING_SECONDS = 0.25
# A child may die so often within so many seconds; then the whole system gives up, where a person sees it.
DEATHS = 5
DEATHS_WINDOW = 60.0
_LONGEST_PAUSE = 8.0


@dataclass
class Child:
    """One process of the system. ``deaths`` are the moments, of a clock that never goes back, at which it died."""

    name: str
    start: Callable[[], Process]
    is_ready: Callable[[], bool]
    log: Path
    process: Process | None = None
    deaths: list[float] = field(default_factory=list)
    start_at: float | None = None
    ready: bool = False

    @property
    def alive(self) -> bool:
        """Whether its process lives."""
        return self.process is not None and self.process.alive

    def died(self, now: float) -> str:
        """Note a death, decide when to start again, and return what happened in words.

        Raises :class:`Unavailable` when it has died too often.
        """
        self.deaths = [moment for moment in self.deaths if now - moment < DEATHS_WINDOW] + [now]
        words = self.last_words()
        if len(self.deaths) >= DEATHS:
            raise Unavailable(f"{words} That was the {len(self.deaths)}th time within {DEATHS_WINDOW:g} s.")
        pause = min(0.25 * 2 ** len(self.deaths), _LONGEST_PAUSE)
        self.start_at = now + pause
        return f"{words} It is started again in {pause:g} s."

    def last_words(self) -> str:
        """Return how its process ended."""
        code = self.process.exit_code() if self.process else None
        how = "" if code is None else f" (exit code {code})"
        return f"{self.name} ended{how}: {process_log.last_line(self.log) or 'it said nothing'}. See {self.log}."


def workers(options: Options, client: Celery) -> list[Child]:
    """Return the worker of the control plane and the one that reads reports; ``client`` asks whether they answer."""
    return [_role(options, role, partial(_answers, client, node(role))) for role in (CONTROL, REPORTS)]


def beat(options: Options) -> Child:
    """Return beat. Its notes of an earlier life are of no use: every job is due anyway."""
    for notes in options.home.glob("beat-schedule*"):
        notes.unlink(missing_ok=True)
    return _role(options, BEAT, lambda: any(options.home.glob("beat-schedule*")))


def flower(home: Path, port: int) -> Child:
    """Return Flower, with the page of the slots, on a port of the loopback interface."""
    argv = (*_PYTHON, "workers.dashboard", "--address=127.0.0.1", f"--port={port}")
    return _child(home, FLOWER, argv, lambda: _serves_http(port))


def valkey(server: Valkey, log: Path) -> Child:
    """Return the Valkey server as a child."""
    return Child(VALKEY, server.start, server.answers, log)


def _role(options: Options, role: str, is_ready: Callable[[], bool]) -> Child:
    argv = (*_PYTHON, "workers.embedded.role", role, options.pool.model_dump_json())
    return _child(options.home, role, argv, is_ready)


def _child(home: Path, name: str, argv: Sequence[str], is_ready: Callable[[], bool]) -> Child:
    log = home / "logs" / f"{name}.log"

    def start() -> Process:
        process_log.bound(log)
        return processes.start(argv, environment=environment(home), directory=home, log=log)

    return Child(name, start, is_ready, log)


def _answers(client: Celery, node: str) -> bool:
    """Whether a worker consumes: it answers only then."""
    with suppress(OperationalError, RedisError, OSError):
        return bool(client.control.inspect(destination=[node], timeout=_PING_SECONDS, limit=1).ping())
    return False


def _serves_http(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    with suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/healthcheck")
        return connection.getresponse().status < http.HTTPStatus.INTERNAL_SERVER_ERROR
    connection.close()
    return False
