"""Agents as they are: in this process where a test looks inside, else as ``python -m agent`` fed by real messages.

The control plane is played by :class:`Plane`: it takes slots in the real map, sends real orders and reads the
reports queue. Terraform is the one on PATH; the configurations need no provider but the built-in one.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis
import structlog
from celery import Celery
from kombu import Exchange, Queue

from agent import source
from agent.children import ChildRecords
from agent.execution import Execution, PhaseFailed
from agent.module import Module
from agent.output import LogWriter
from agent.phases import Phases
from agent.prepared import PreparedDirectories
from agent.programs import Installed, Programs
from agent.runtime import Agent
from agent.settings import AgentSettings
from agent.terraform_environment import run_environment, terraform_environment
from tests.waiting import eventually
from workers.protocol import names
from workers.protocol.kinds import FailureReason, Phase, RunKind
from workers.protocol.leases import CancelMode, Lease
from workers.protocol.log_lines import LogLine
from workers.protocol.messages import CancelRequest, Order, PhaseFinished, Report
from workers.slots.log_stream import RunLog
from workers.slots.report_queue import ReportQueue
from workers.slots.slot_map import SlotMap

POOL = "pool"
LOGGER = structlog.get_logger("agent")


@pytest.fixture(autouse=True)
def _terraform_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("TF_", "TERRASLOT_"))]:
        monkeypatch.delenv(name)


@dataclass
class Configuration:
    """A Terraform configuration in a directory."""

    path: Path

    def write(self, text: str, name: str = "main.tf") -> Configuration:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_text(text)
        return self

    def runs(self, command: str, *, when: str = "") -> Configuration:
        """Let an apply run a shell command."""
        text = f'resource "terraform_data" "it" {{\n provisioner "local-exec" {{\n  command = {json.dumps(command)}\n'
        return self.write(f"{text} {when}}}\n}}\n")

    @property
    def source(self) -> dict[str, str]:
        return {"type": "directory", "path": str(self.path)}

    @property
    def module(self) -> Module:
        return Module(self.path, self.path)


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    """Return an empty configuration."""
    path = tmp_path / "configuration"
    path.mkdir()
    return Configuration(path)


@pytest.fixture
def make_order(tmp_path: Path) -> Callable[..., Order]:
    """Return a maker of orders; state goes to ``tmp_path/state``."""

    def make(source: dict[str, str], **facts: Any) -> Order:
        return Order.model_validate(
            {
                "run": "run-1",
                "workspace": "net",
                "kind": RunKind.PLAN_AND_APPLY,
                "phase": Phase.PLAN,
                "slot": 0,
                "token": secrets.token_hex(16),
                "source": source,
                "timeout": 60,
                "interrupt_grace": 20,
                "state_path": str(tmp_path / "state" / "terraform.tfstate"),
                **facts,
            }
        )

    return make


@dataclass
class Lines:
    """A log in memory."""

    lines: list[LogLine] = field(default_factory=list)

    def append(self, lines: Any) -> None:
        self.lines += lines

    @property
    def texts(self) -> list[str]:
        return [line.text for line in self.lines]


@dataclass
class Bench:
    """Phases without slots, reports and Redis: an order in, an outcome or an exception out."""

    work_dir: Path
    command: tuple[str, ...] = ("terraform",)
    programs: Programs | None = None
    lines: Lines = field(default_factory=Lines)
    kept_bytes: int = 1 << 30
    module_seconds: float = 0
    announced: list[str | None] = field(default_factory=list)
    git_cache_bytes: int = 100 * 2**20

    def execution(self, order: Order, **facts: Any) -> Execution:
        return Execution(
            order,
            pool=POOL,
            agent="agent-1",
            directory=self.work_dir / "runs" / order.run,
            records=ChildRecords(self.work_dir / "children"),
            log=LogWriter(self.lines.append, order.phase, LOGGER),
            post=lambda report: self.announced.append(getattr(report, "commit", None)),
            logger=LOGGER,
            **facts,
        )

    def execute(self, order: Order, execution: Execution | None = None) -> Any:
        execution = execution or self.execution(order)
        try:
            return self.phases.execute(execution)
        finally:
            execution.log.close(5)

    def fetch(self, order: Order, execution: Execution | None = None) -> Path:
        """Fetch the order's source alone, and return the directory in which Terraform would run."""
        execution = execution or self.execution(order)
        execution.directory.mkdir(parents=True)
        try:
            return source.fetch(
                execution,
                self.work_dir,
                run_environment(os.environ, order.environment),
                order.environment,
                self.phases.cache,
            ).path
        finally:
            execution.log.close(5)

    @property
    def phases(self) -> Phases:
        settings = AgentSettings(pool=POOL, agent="agent-1", work_dir=self.work_dir)
        programs = self.programs or Programs((Installed(self.command),))
        environment = terraform_environment(settings, os.environ, LOGGER)
        return Phases(programs, environment, self.work_dir, self.prepared, None, lambda _: None, self.git_cache_bytes)

    @cached_property
    def prepared(self) -> PreparedDirectories:
        return PreparedDirectories(self.work_dir, most=self.kept_bytes, seconds=self.module_seconds)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Return a place to execute phases in this process."""
    return Bench(tmp_path / "work")


@pytest.fixture
def refusing_backend() -> Iterator[str]:
    """Return the address of a server that has no state and takes none."""

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(404)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(403)

        def answer(self, code: int) -> None:
            self.send_response(code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def of_apply(order: Order, **facts: Any) -> Order:
    """Return the order that applies what another one planned."""
    return order.model_copy(update={"phase": Phase.APPLY, "token": secrets.token_hex(16), **facts})


def unavailable(bench: Bench, order: Order) -> str:
    with pytest.raises(PhaseFailed) as failed:
        bench.fetch(order)
    assert failed.value.reason is FailureReason.SOURCE_UNAVAILABLE
    return failed.value.text


class Plane:
    """The control plane's part: slots, orders, cancels, and the reports it reads."""

    def __init__(self, url: str, make_order: Callable[..., Order]) -> None:
        self.redis = redis.Redis.from_url(url)
        self.slots = SlotMap(self.redis, POOL)
        self.celery = Celery("plane", broker=url, set_as_current=False)
        self.celery.conf.broker_transport_options = {"priority_steps": [0]}
        self.reports: list[dict[str, Any]] = []
        self._make_order = make_order

    def order(self, run: str, source: dict[str, str], *, kind: RunKind = RunKind.PLAN_AND_APPLY, **facts: Any) -> Order:
        """Take a slot for the run and return its first order."""
        lease = eventually(lambda: self.slots.acquire(run, kind, secrets.token_hex(16)))
        return self._of(lease, source=source, **facts)

    def resume(self, order: Order) -> Order:
        """Return the order that applies what a run has planned."""
        lease = self.slots.resume(order.run, order.token, secrets.token_hex(16))
        assert lease is not None
        return order.model_copy(update={"token": lease.token, "phase": Phase.APPLY})

    def _of(self, lease: Lease, source: dict[str, str], **facts: Any) -> Order:
        return self._make_order(
            source,
            run=lease.run,
            kind=lease.kind,
            slot=lease.slot,
            token=lease.token,
            **{"workspace": lease.run, **facts},
        )

    def send(self, order: Order, agent: str = "agent-1") -> Order:
        self._send(agent, names.EXECUTE_ORDER, order=order.model_dump(mode="json"))
        return order

    def cancel(self, order: Order, mode: CancelMode = CancelMode.INTERRUPT, agent: str = "agent-1") -> None:
        """Ask for a cancel by message alone."""
        request = CancelRequest(run=order.run, token=order.token, mode=mode)
        self._send(agent, names.CANCEL_ORDER, request=request.model_dump(mode="json"))

    def _send(self, agent: str, task: str, **kwargs: Any) -> None:
        name = names.orders_queue(POOL, agent)
        queue = Queue(name, Exchange(""), routing_key=name)
        self.celery.send_task(task, kwargs=kwargs, queue=queue, ignore_result=True)

    def read(self) -> list[dict[str, Any]]:
        """Return all reports so far."""
        self.reports += [json.loads(found.content) for found in ReportQueue(self.redis, POOL).take(1_000)]
        return self.reports

    def report(self, kind: str, seconds: float = 20, **facts: Any) -> dict[str, Any]:
        """Wait for a report of this type with these facts."""
        wanted = {"type": kind, **facts}
        return eventually(lambda: next((each for each in self.read() if wanted.items() <= each.items()), None), seconds)

    def finished(self, order: Order, seconds: float = 30) -> dict[str, Any]:
        """Wait for the report of a phase's end, and take it: the slot is free."""
        report = self.report("phase_finished", seconds, run=order.run, token=order.token)
        self.slots.release(order.run, order.token)
        return report

    def log(self, run: str) -> list[str]:
        return [line.text for line in self.log_lines(run)]

    def log_lines(self, run: str) -> list[LogLine]:
        log, lines = RunLog(self.redis, POOL, run), list[LogLine]()
        while more := log.read(after=lines[-1].id if lines else "0"):
            lines += more
        return lines

    def close(self) -> None:
        self.celery.close()
        self.redis.close()


@pytest.fixture
def plane(redis_url: str, make_order: Callable[..., Order]) -> Iterator[Plane]:
    """Return the control plane's part, on an empty server."""
    plane = Plane(redis_url, make_order)
    yield plane
    plane.close()


class AgentProcess:
    """A running agent, and its log."""

    def __init__(self, home: Path, url: str, name: str, command: tuple[str, ...], environment: dict[str, str]) -> None:
        self.name = name
        self.work_dir = home / name
        self.log_path = home / f"{name}.log"
        self.environment = {
            **os.environ,
            "TERRASLOT_POOL": POOL,
            "TERRASLOT_AGENT": name,
            "TERRASLOT_WORK_DIR": str(self.work_dir),
            "TERRASLOT_REDIS_URL": url,
            "TERRASLOT_GRACE_SECONDS": "60",
            **environment,
        }
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=self.environment, cwd=home, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def exit_code(self, seconds: float = 30) -> int:
        return self.process.wait(seconds)


@pytest.fixture
def start_agent(tmp_path: Path, redis_url: str) -> Iterator[Callable[..., AgentProcess]]:
    """Return a starter of agents as processes of their own."""
    agents: list[AgentProcess] = []

    def start(
        name: str = "agent-1",
        command: tuple[str, ...] = (sys.executable, "-m", "agent"),
        url: str = redis_url,
        **environment: str,
    ) -> AgentProcess:
        agents.append(AgentProcess(tmp_path, url, name, command, environment))
        return agents[-1]

    yield start
    for agent in agents:
        if agent.process.poll() is None:
            agent.process.kill()
            agent.process.wait()
        for pid in ChildRecords(agent.work_dir / "children").leftovers():
            os.killpg(pid, signal.SIGKILL)


@pytest.fixture
def agent(start_agent: Callable[..., AgentProcess], plane: Plane) -> AgentProcess:
    """Return an agent that has registered."""
    agent = start_agent()
    eventually(lambda: plane.slots.agent("agent-1"))
    return agent


@dataclass
class InnerAgent:
    """An agent in this process; its reports go to a list, or nowhere while ``lossy``."""

    agent: Agent
    sent: list[Report] = field(default_factory=list)
    lossy: bool = False
    threads: list[threading.Thread] = field(default_factory=list)

    def execute(self, order: Order) -> threading.Thread:
        thread = threading.Thread(target=self.agent.execute, args=(order.model_dump(mode="json"),))
        thread.start()
        self.threads.append(thread)
        return thread

    def finished(self, order: Order, seconds: float = 20) -> PhaseFinished:
        def found() -> PhaseFinished | None:
            ends = (report for report in self.sent if isinstance(report, PhaseFinished))
            return next((report for report in ends if report.token == order.token), None)

        report: PhaseFinished = eventually(found, seconds)
        return report


@pytest.fixture
def inner_agent(tmp_path: Path, redis_url: str) -> Iterator[Callable[..., InnerAgent]]:
    """Return a maker of agents in this process, registered and with a pulse unless ``start=False``."""
    made: list[InnerAgent] = []

    def make(name: str = "agent-1", *, start: bool = True, **settings: Any) -> InnerAgent:
        config = AgentSettings(
            pool=POOL, agent=name, redis_url=redis_url, **{"work_dir": tmp_path / name, "grace_seconds": 5, **settings}
        )
        inner = InnerAgent(Agent(config, lambda report, _: None if inner.lossy else inner.sent.append(report), LOGGER))
        if start:
            inner.agent.start()
            eventually(lambda: any(report.type == "agent_registered" for report in inner.sent))
        made.append(inner)
        return inner

    yield make
    for inner in made:
        for execution in inner.agent.slots.executing():
            execution.stop("shutdown", kill_in=0)
        for thread in inner.threads:
            thread.join(10)
        inner.agent.heartbeat.end()
        inner.agent.reports.flush(1)
