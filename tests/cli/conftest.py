"""The command line in this process, on a real Valkey and SQLite; and as a program, on a whole embedded system."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog
from celery import Celery
from typer.testing import CliRunner

from tests.waiting import eventually
from workers.app import build_app
from workers.cli import history
from workers.cli import system as cli_system
from workers.cli.console import console
from workers.cli.main import app
from workers.core.lifecycle import RunStatus
from workers.protocol import names
from workers.protocol.kinds import RunKind
from workers.protocol.sources import DirectorySource
from workers.services import system as services_system
from workers.services import workspaces
from workers.services.pools import manage as pools
from workers.services.runs import decide, dispatch, submit
from workers.services.runs import views as run_views
from workers.services.runs.submit import RunRequest
from workers.services.runs.views import RunFilter, RunView
from workers.services.system import System, build
from workers.settings import Settings, settings
from workers.specs.pools import PoolSpec
from workers.specs.workspaces import WorkspaceSpec
from workers.store.models import Run

PROGRAM = Path(sys.executable).with_name("terraslot")
POOL = "default"


@dataclass(frozen=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def sentence(self) -> str:
        """The one line of a refusal: exit code 1, nothing on stdout, no traceback."""
        return self._told(1)

    @property
    def misuse(self) -> str:
        """The same for a wrong usage: exit code 2."""
        return self._told(2)

    def _told(self, code: int) -> str:
        assert (self.code, self.out) == (code, ""), self
        (line,) = self.err.splitlines()
        return line.removeprefix("Error: ")


def terraslot(command: str, *more: str) -> Answer:
    """Run a command, written as in a shell and followed by further arguments, in this process."""
    result = CliRunner().invoke(app, [*shlex.split(command), *more], prog_name="terraslot")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Answer(result.exit_code, result.stdout, result.stderr)


def _forget() -> None:
    for cached in (settings, cli_system.system, history.database, console):
        cached.cache_clear()
    structlog.reset_defaults()


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An environment without servers of anybody else; returns its home."""
    for name in [name for name in os.environ if name.startswith("TERRASLOT_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("TERRASLOT_HOME", str(home))
    _forget()
    yield home
    _forget()


@dataclass
class Control:
    """A system without workers and agents, moved by hand."""

    system: System
    home: Path
    count: int = 0

    def workspace(self, name: str = "net", **facts: Any) -> str:
        code = self.home / "code"
        code.mkdir(exist_ok=True)
        (code / "main.tf").write_text('output "hello" { value = "world" }\n')
        workspaces.create(self.system, WorkspaceSpec(name=name, source=DirectorySource(path=str(code)), **facts))
        return name

    def submit(self, kind: RunKind = RunKind.PLAN, workspace: str = "net", run_id: str | None = None) -> Run:
        self.count += 1
        run_id = run_id or f"run-{self.count}"
        options = {"task_id": run_id}
        task = {"name": f"terraform.{kind}", "args": [], "kwargs": {"workspace": workspace}, "options": options}
        submit.submit(self.system, run_id, kind, RunRequest(workspace=workspace), task)
        return decide.get(self.system, run_id)

    def agent(self, name: str = "default-1") -> str:
        self.system.slots(POOL).register(name, "life-1")
        dispatch.dispatch(self.system, POOL)
        return name


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with tables and a pool: migrating one for every test would take most of the tests' time."""
    home = tmp_path_factory.mktemp("database")
    system = build(Settings(home=home, database_url=""), Celery(set_as_current=False))
    system.database.migrate()
    pools.ensure(system, PoolSpec(name=POOL))
    system.database.dispose()
    return home / "terraslot.db"


@pytest.fixture
def control(
    environment: Path, redis_url: str, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Control]:
    """A system without workers and agents, which the command line in this process finds."""
    shutil.copy(empty_database, environment)
    with _found_by_the_command_line(Settings(redis_url=redis_url), monkeypatch) as system:
        yield Control(system, environment)


@pytest.fixture
def embedded(program: Program, environment: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Embedded]:
    """The running embedded system, which the command line in this process finds."""
    monkeypatch.setenv("TERRASLOT_HOME", str(program.home))
    with _found_by_the_command_line(Settings(), monkeypatch) as system:
        yield Embedded(system, program)


@contextmanager
def _found_by_the_command_line(config: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    celery = build_app("test", [names.SUBMIT_QUEUE, names.CONTROL_QUEUE], [], config)
    system = build(config, celery)
    monkeypatch.setattr(services_system, "system", lambda: system)
    yield system
    history.database().dispose()
    system.database.dispose()
    celery.backend.result_consumer.stop()
    celery.close()
    system.redis.close()


@dataclass(frozen=True)
class Embedded:
    """A running system, and the program that started it."""

    system: System
    program: Program

    def workspace(self, name: str, code: str, **facts: Any) -> str:
        """Create a workspace from Terraform code."""
        directory = self.program.home.parent / name
        directory.mkdir()
        (directory / "main.tf").write_text(code)
        workspaces.create(self.system, WorkspaceSpec(name=name, source=DirectorySource(path=str(directory)), **facts))
        return name

    def latest(self, workspace: str) -> RunView | None:
        return next(iter(run_views.recent(self.system.database, RunFilter(workspace=workspace), limit=1)), None)

    def reaches(self, workspace: str, status: RunStatus) -> RunView:
        """Wait until the latest run of a workspace has a status."""

        def look() -> RunView | None:
            run = self.latest(workspace)
            return run if run is not None and run.status is status else None

        return eventually(look, timeout=120)


@dataclass(frozen=True)
class Program:
    """The installed program, on a running embedded system."""

    home: Path

    @property
    def environment(self) -> dict[str, str]:
        foreign = ("TERRASLOT_", "TF_CLI_CONFIG_FILE")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        return kept | {"TERRASLOT_HOME": str(self.home)}

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        return subprocess.Popen([PROGRAM, *arguments], env=self.environment, text=True, **options)

    def __call__(self, *arguments: str) -> Answer:
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=120)
        return Answer(process.returncode, out, err)


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """An embedded system, started and stopped by the program itself."""
    program = Program(tmp_path_factory.mktemp("embedded") / "home")
    started = program("up", "--detach", "--no-flower")
    assert started.code == 0, started
    try:
        yield program
    finally:
        stopped = program("down", "--yes")
        assert stopped.code == 0, stopped


Terraslot = Callable[..., Answer]


@pytest.fixture
def cli() -> Terraslot:
    return terraslot
