"""The embedded system in the foreground: Valkey, SQLite, the workers, beat, Flower and a local pool under one home.

The supervisor starts everything, waits until each part answers, starts again what dies, and ends everything when it
is told to, also in the middle of starting. What it starts lives in sessions of its own: a Ctrl-C reaches it alone. On
Linux, the components are forked from a process that has loaded what they share (:mod:`workers.embedded.nursery`).
"""

import http.client
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from workers.cluster import process_log, processes, system_user
from workers.cluster.local import LocalPods
from workers.cluster.processes import Process
from workers.core.backoff import pause
from workers.embedded import state, valkey
from workers.embedded.component import BEAT, CLUSTER, CONTROL, REPORTS, ready_file
from workers.embedded.nursery import Nursery
from workers.embedded.shutdown import FLOWER, VALKEY, Interrupts, Progress, shut_down
from workers.embedded.state import Options, Running
from workers.protocol.errors import InvalidRequest, Unavailable
from workers.protocol.redis_address import parse
from workers.protocol.settings import PREFIX
from workers.settings import settings
from workers.slots.connection import connect
from workers.slots.redis_server import unavailable
from workers.slots.report_queue import is_read

# Seconds. A slow machine takes ten for all imports, and a database is given up after five.
_START_DEADLINE = 60.0
_LOOK_SECONDS = 0.25
_ASK_SECONDS = 0.02
_FLOWER_PORT = 5555
_PYTHON = (sys.executable, "-P", "-m")
# macOS does not promise that a fork works whose parent has used its libraries.
_FORKS = sys.platform == "linux"
# A component may die four times within a minute; at the fifth the system gives up, where a person sees it.
DEATHS = 5
DEATHS_WINDOW = 60.0
# The report reader has no keys and no way to a cluster; a variable that is empty overrides what `system.json` says.
_SECRETS = ("ENCRYPTION_KEYS", "SHARED_AGENT_USERNAME", "SHARED_AGENT_PASSWORD", "KUBECONFIG")
_NO_SECRETS = dict.fromkeys((f"{PREFIX}{name}" for name in _SECRETS), "")
# Each serves its metrics at a port of its own: the one that is set, and the next ones.
_METRICS = {CONTROL: 0, CLUSTER: 1, REPORTS: 2}
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 8.0


class _Stopped(Exception):
    """The end was asked for while the system was starting."""


@dataclass
class Component:
    """One process of the system. ``deaths`` are the moments, of the monotonic clock, at which it died."""

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
        said = self.how_it_ended()
        if len(self.deaths) >= DEATHS:
            raise Unavailable(f"{said} That was the {len(self.deaths)}th time within {DEATHS_WINDOW:g} s.")
        wait = pause(len(self.deaths), first=_FIRST_PAUSE, longest=_LONGEST_PAUSE)
        self.start_at = now + wait
        return f"{said} It is started again in {wait:g} s."

    def how_it_ended(self) -> str:
        """Return how its process ended, with the last line of its log."""
        code = self.process.exit_code() if self.process else None
        how = "" if code is None else f" (exit code {code})"
        return f"{self.name} ended{how}: {process_log.last_line(self.log) or 'it said nothing'}. See {self.log}."


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
    with state.owned(options.home), Interrupts(tied_to) as interrupts:
        os.environ[f"{PREFIX}HOME"] = str(options.home)
        if left := state.running(options.home):
            progress("Cleaning up after a system that was killed")
            # Its agents go on: they find Valkey again where it was.
            shut_down(options.home, left, interrupts, progress, keep_agents=True)
        supervisor = _Supervisor(options, interrupts, progress)
        try:
            supervisor.start()
            ready(supervisor.running)
            supervisor.watch()
        except _Stopped:
            pass
        finally:
            progress("Stopping")
            shut_down(options.home, supervisor.running, interrupts, progress)
            supervisor.close()
            settings.cache_clear()


class _Supervisor:
    def __init__(self, options: Options, interrupts: Interrupts, progress: Progress) -> None:
        self._options = options
        self._home = options.home
        self._interrupts = interrupts
        self._progress = progress
        self._components: list[Component] = []
        self._nursery = Nursery(self._home, {**state.environment(self._home), **_NO_SECRETS}) if _FORKS else None
        self._claims = ExitStack()
        self._flower_port = _flower_port(options, self._claims)
        own = _servers_of_ones_own()
        self._agents_user = system_user.named(settings().local_user)
        if self._agents_user is None and os.geteuid() == 0:
            progress(f"Local agents run as root. Set {system_user.VARIABLE} to a user that has no rights of its own.")
        self._valkey = None if own.get("redis_url") else valkey.configure(self._home)
        self.running = Running(
            redis_url=self._valkey.url if self._valkey else own["redis_url"],
            flower_url=f"http://127.0.0.1:{self._flower_port}" if self._flower_port else None,
            owner=processes.identify(os.getpid()),
            settings={"encryption_keys": state.encryption_key(self._home), **own, **options.settings},
        )

    def start(self) -> None:
        """Start everything, and wait until all of it answers."""
        if self._valkey is None:
            _ask(self.running.redis_url)
        else:
            self._start(Component(VALKEY, self._valkey.start, self._valkey.answers, valkey.log(self._home)))
            self._await_ready()
        self.running.write(self._home)
        LocalPods(self._home, {}, user=self._agents_user).open()
        settings.cache_clear()
        for worker in (CONTROL, CLUSTER):
            said = ready_file(self._home, worker)
            said.unlink(missing_ok=True)
            self._start(self._control_plane(worker, said.exists))
        self._start(self._control_plane(REPORTS, partial(_reads, connect(settings().redis))))
        # Beat's notes of an earlier start are of no use: every job is due anyway.
        for notes in self._home.glob("beat-schedule*"):
            notes.unlink(missing_ok=True)
        self._start(self._control_plane(BEAT, lambda: any(self._home.glob("beat-schedule*"))))
        if port := self._flower_port:
            argv = ("workers.dashboard", "--address=127.0.0.1", f"--port={port}")
            self._start(self._component(FLOWER, argv, partial(_serves_http, port)))
        self._await_ready()
        self.running.ready = True
        self.running.write(self._home)

    def close(self) -> None:
        """End what components are forked from; they have ended."""
        if self._nursery:
            self._nursery.close()
        self._claims.close()

    def watch(self) -> None:
        """Start again what dies, until the end is asked for."""
        while not self._interrupts.wait(_LOOK_SECONDS):
            now = time.monotonic()
            for component in self._components:
                self._look(component, now)

    def _look(self, component: Component, now: float) -> None:
        if component.start_at is not None:
            if now >= component.start_at:
                component.start_at = None
                self._start_process(component)
        elif not component.alive:
            self._progress(component.died(now))
        else:
            process_log.bound(component.log)

    def _control_plane(self, name: str, is_ready: Callable[[], bool]) -> Component:
        argv = ("workers.embedded.component", name, self._options.pool.model_dump_json(exclude_defaults=True))
        return self._component(name, argv, is_ready)

    def _component(self, name: str, argv: Sequence[str], is_ready: Callable[[], bool]) -> Component:
        log = self._home / "logs" / f"{name}.log"

        def start() -> Process:
            process_log.bound(log)
            withheld = _NO_SECRETS if name == REPORTS else {}
            environment = {**state.environment(self._home), **withheld, **_metrics(name)}
            if self._nursery:
                return self._nursery.start(argv, environment=environment, directory=self._home, log=log)
            return processes.start([*_PYTHON, *argv], environment=environment, directory=self._home, log=log)

        return Component(name, start, is_ready, log)

    def _start(self, component: Component) -> None:
        self._components.append(component)
        self._start_process(component)

    def _start_process(self, component: Component) -> None:
        try:
            component.process = component.start()
        except OSError as error:
            raise Unavailable(f"{component.name} can't be started: {error.strerror}.") from error
        self.running.children[component.name] = component.process
        self.running.write(self._home)

    def _await_ready(self) -> None:
        until = time.monotonic() + _START_DEADLINE
        while [component for component in self._components if not self._is_ready(component, until)]:
            if self._interrupts.wait(_ASK_SECONDS):
                raise _Stopped

    def _is_ready(self, component: Component, until: float) -> bool:
        if not component.alive:
            raise Unavailable(component.how_it_ended())
        if not component.ready and component.is_ready():
            component.ready = True
            self._progress(f"{component.name} answers")
        if not component.ready and time.monotonic() >= until:
            raise Unavailable(f"{component.name} did not answer within {_START_DEADLINE:g} s. See {component.log}.")
        return component.ready


def _metrics(name: str) -> dict[str, str]:
    port = settings().metrics_port
    return {f"{PREFIX}METRICS_PORT": str(port + _METRICS[name])} if port and name in _METRICS else {}


def _reads(client: Redis) -> bool:
    """Whether reports are read."""
    with suppress(RedisError):
        return is_read(client)
    return False


def _serves_http(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    with suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/healthcheck")
        return connection.getresponse().status < http.HTTPStatus.INTERNAL_SERVER_ERROR
    connection.close()
    return False


def _ask(redis_url: str) -> None:
    """Raise :class:`Unavailable` where a server of one's own does not answer."""
    address = parse(redis_url)
    try:
        connect(address).ping()
    except RedisError as error:
        raise unavailable(error, address) or error from error


def _servers_of_ones_own() -> dict[str, str]:
    """Return the addresses that the environment names: every process of the system uses them, in any shell.

    Raises :class:`InvalidRequest` for an invalid variable, and for queues alone on such a server.
    """
    settings.cache_clear()
    settings()  # it names what is invalid
    found = {
        name: os.environ.get(f"{PREFIX}{name.upper()}", "") for name in ("redis_url", "broker_url", "database_url")
    }
    if found["broker_url"] and not found["redis_url"]:
        raise InvalidRequest(f"{PREFIX}BROKER_URL names a server of your own: set {PREFIX}REDIS_URL as well.")
    return {name: url for name, url in found.items() if url}


def _flower_port(options: Options, claims: ExitStack) -> int | None:
    if not options.flower:
        return None
    if options.flower_port is None:
        usual = valkey.is_free(_FLOWER_PORT) and valkey.claim(_FLOWER_PORT, claims)
        return _FLOWER_PORT if usual else valkey.free_port()
    if not valkey.is_free(options.flower_port):
        raise InvalidRequest(f"Port {options.flower_port} is taken: choose another for Flower, or none.")
    return options.flower_port
