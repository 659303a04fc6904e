"""The embedded system in the foreground: Valkey, SQLite, both workers, beat, Flower and a local pool under one home.

The supervisor starts everything, waits until each part answers, starts again what dies, and ends everything when it
is told to, also in the middle of starting. Its children live in sessions of their own: a Ctrl-C reaches it alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from celery import Celery

from workers.cluster import process_log
from workers.cluster.local import LocalPods
from workers.embedded import children, keys, state
from workers.embedded import valkey as server
from workers.embedded.children import Child
from workers.embedded.interrupts import Interrupts
from workers.embedded.options import Options
from workers.embedded.shutdown import Progress, shut_down
from workers.embedded.state import Running
from workers.protocol.errors import InvalidRequest, Unavailable
from workers.protocol.settings import PREFIX
from workers.settings import settings

_START_DEADLINE = 60.0
_LOOK_SECONDS = 0.25
_ASK_SECONDS = 0.02
_FLOWER_PORT = 5555


class _Told(Exception):
    """Somebody asked for the end while the system was starting."""


def up(
    options: Options,
    progress: Progress = lambda _: None,
    ready: Callable[[Running], None] = lambda _: None,
    tied_to: int | None = None,
) -> None:
    """Run an embedded system until SIGINT, SIGTERM or SIGHUP; to be called by the main thread.

    ``progress`` is told each step in a sentence, ``ready`` once that everything answers. With ``tied_to``, a pipe's
    reading end, the system also ends when the pipe's other end is closed. Raises :class:`InvalidRequest` for a home or
    port that can't be used, :class:`StillInUse` where another system runs under the same home, and
    :class:`Unavailable` where a part can't be started or dies again and again; nothing is left running then.
    """
    _refuse_other_servers()
    with state.owned(options.home), Interrupts(tied_to) as interrupts:
        os.environ[f"{PREFIX}HOME"] = str(options.home)
        _clean_up_after_a_killed_supervisor(options.home, interrupts, progress)
        supervisor = _Supervisor(options, interrupts, progress)
        try:
            supervisor.start()
            ready(supervisor.running)
            supervisor.watch()
        except _Told:
            pass
        finally:
            progress("Stopping")
            shut_down(options.home, supervisor.running, interrupts, progress)
            settings.cache_clear()


class _Supervisor:
    def __init__(self, options: Options, interrupts: Interrupts, progress: Progress) -> None:
        self._options = options
        self._home = options.home
        self._interrupts = interrupts
        self._progress = progress
        self._children: list[Child] = []
        flower_port = _flower_port(options)
        self._flower_port = flower_port
        self._valkey = server.configure(self._home)
        self.running = Running(
            redis_url=self._valkey.url,
            flower_url=f"http://127.0.0.1:{flower_port}" if flower_port else None,
            settings={"encryption_keys": keys.own(self._home), **options.settings},
        )

    def start(self) -> None:
        """Start everything, and wait until all of it answers."""
        self._start([children.valkey(self._valkey, server.log(self._home))])
        self._await_ready()
        LocalPods(self._home, {}).open()
        settings.cache_clear()
        client = Celery("terraslot-supervisor", broker=settings().broker, set_as_current=False)
        self._start([*children.workers(self._options, client), children.beat(self._options)])
        if self._flower_port:
            self._start([children.flower(self._home, self._flower_port)])
        self._await_ready()
        self.running.ready = True
        self.running.write(self._home)

    def watch(self) -> None:
        """Start again what dies, until somebody asks for the end."""
        while not self._interrupts.wait(_LOOK_SECONDS):
            now = time.monotonic()
            for child in self._children:
                self._look(child, now)

    def _look(self, child: Child, now: float) -> None:
        if child.start_at is not None:
            if now >= child.start_at:
                child.start_at = None
                self._start_one(child)
        elif not child.alive:
            self._progress(child.died(now))
        else:
            process_log.bound(child.log)

    def _start(self, new: Iterable[Child]) -> None:
        for child in new:
            self._children.append(child)
            self._start_one(child)

    def _start_one(self, child: Child) -> None:
        try:
            child.process = child.start()
        except OSError as error:
            raise Unavailable(f"{child.name} can't be started: {error.strerror}.") from error
        self.running.note(child.name, child.process)
        self.running.write(self._home)

    def _await_ready(self) -> None:
        until = time.monotonic() + _START_DEADLINE
        while [child for child in self._children if not self._answers(child, until)]:
            if self._interrupts.wait(_ASK_SECONDS):
                raise _Told

    def _answers(self, child: Child, until: float) -> bool:
        if not child.alive:
            raise Unavailable(child.last_words())
        if not child.ready and child.is_ready():
            child.ready = True
            self._progress(f"{child.name} answers")
        if not child.ready and time.monotonic() >= until:
            raise Unavailable(f"{child.name} did not answer within {_START_DEADLINE:g} s. See {child.log}.")
        return child.ready


def _refuse_other_servers() -> None:
    for name in (f"{PREFIX}REDIS_URL", f"{PREFIX}BROKER_URL"):
        if os.environ.get(name):
            raise InvalidRequest(
                f"{name} names a server of your own, but the embedded system brings its own: unset it, or run the "
                "workers against your server instead."
            )


def _flower_port(options: Options) -> int | None:
    if not options.flower:
        return None
    if options.flower_port is None:
        return _FLOWER_PORT if server.is_free(_FLOWER_PORT) else server.free_port()
    if not server.is_free(options.flower_port):
        raise InvalidRequest(f"Port {options.flower_port} is taken: choose another for Flower, or none.")
    return options.flower_port


def _clean_up_after_a_killed_supervisor(home: Path, interrupts: Interrupts, progress: Progress) -> None:
    """End the children, but not the agents, that a killed supervisor left: agents find Valkey again where it was."""
    left = state.running(home)
    if left is not None:
        progress("Cleaning up after a system that was killed")
        shut_down(home, left, interrupts, progress, keep_agents=True)
