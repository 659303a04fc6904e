"""One embedded system for all tests here: real Valkey, workers, beat, agents and Terraform.

Terraform is called through a script that waits, before a command, until a file appears, so that a test can hold a
phase open for as long as it likes: workspaces say which with ``HOLD_PLAN`` and ``HOLD_APPLY`` in their environment.
"""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.result import AsyncResult

from agent import embedded_terraform
from tests.waiting import eventually
from workers.core.pools import PoolLimits, PoolTimeouts
from workers.embedded import state
from workers.embedded.background import detach, down
from workers.embedded.state import Options
from workers.embedded.valkey import free_port
from workers.protocol.sources import DirectorySource
from workers.services import workspaces
from workers.services.pools import manage as pools
from workers.services.runs import decide
from workers.services.system import System, build
from workers.settings import Settings, settings
from workers.slots.slot_map import SlotMap
from workers.specs.pools import PoolSpec
from workers.specs.workspaces import WorkspaceSpec
from workers.store.models import Run

HELLO = """
variable "name" { default = "world" }
resource "terraform_data" "greeting" { input = "hello ${var.name}" }
output "greeting" { value = terraform_data.greeting.output }
"""
HELD = """
resource "terraform_data" "held" {
  provisioner "local-exec" { command = "until [ -e \\"$GATE\\" ]; do sleep 0.05; done" }
}
"""
LIBRARY = """#!/bin/sh
exec {python} -P {program} "$@"
"""
WRAPPER = """#!/bin/sh
case "$1" in plan) gate="$HOLD_PLAN" ;; apply) gate="$HOLD_APPLY" ;; esac
if [ -n "$gate" ]; then
  echo "held before $1"
  until [ -e "$gate" ]; do sleep 0.05; done
fi
exec {terraform} "$@"
"""


Ask = Callable[..., Any]
PERSON = {"Authorization": f"Basic {base64.b64encode(b'me:secret').decode()}"}


@dataclass
class Cloud:
    """A running system and short words for what tests do with it."""

    system: System
    directory: Path
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def app(self) -> Celery:
        return self.system.celery

    def pool(self, **limits: Any) -> str:
        """Create a pool of local agents that nobody else uses."""
        name = f"pool{next(self.numbers)}"
        spec = PoolSpec(
            name=name,
            limits=PoolLimits(**({"max_agents": 2, "idle_timeout": 600} | limits)),
            timeouts=PoolTimeouts(silent=3, dead=6, redeem=20, interrupt=10),
        )
        pools.ensure(self.system, spec)
        return name

    def workspace(self, code: str = HELLO, *, pool: str = "default", **facts: Any) -> str:
        """Create a workspace of its own with this code."""
        name = f"ws{next(self.numbers)}"
        directory = self.directory / name
        directory.mkdir()
        (directory / "main.tf").write_text(code)
        workspaces.create(
            self.system, WorkspaceSpec(name=name, pool=pool, source=DirectorySource(path=str(directory)), **facts)
        )
        return name

    def gate(self) -> Path:
        """Return a path that does not exist; creating it lets go of what is held."""
        return self.directory / f"gate{next(self.numbers)}"

    def plan(self, workspace: str, **options: Any) -> AsyncResult:
        return self.app.send_task("terraform.plan", kwargs={"workspace": workspace, **options})

    def apply(self, workspace: str, **options: Any) -> AsyncResult:
        return self.app.send_task("terraform.plan_and_apply", kwargs={"workspace": workspace, **options})

    def tell(self, verb: str, result: AsyncResult, **options: Any) -> dict[str, Any]:
        answer = self.app.send_task(f"terraform.{verb}", args=[result.id], kwargs=options)
        eventually(answer.ready, 20)  # asked anew each time: a subscription may have died with a killed server
        return answer.get(timeout=1)

    def reach(self, result: AsyncResult, state: str, seconds: float = 40) -> AsyncResult:
        """Wait until a run's Celery state is this one."""

        def reached() -> bool:
            now = result.state
            assert now == state or not result.ready(), f"{now} instead of {state}: {result.result}"
            return now == state

        eventually(reached, seconds)
        return result

    def started(self, result: AsyncResult) -> Run:
        """Wait until an agent has redeemed the token of a run's phase; return the run."""
        eventually(lambda: result.state in ("PLANNING", "APPLYING") and self.run(result).started_at)
        return self.run(result)

    def run(self, result: AsyncResult) -> Run:
        return decide.get(self.system, result.id)

    def slots(self, pool: str = "default") -> SlotMap:
        return self.system.slots(pool)

    def pods(self, pool: str) -> list[str]:
        return [pod.name for pod in self.system.backends["local"].list(pool)]

    def quiet(self, pool: str = "default") -> bool:
        """Whether every slot of a pool is idle (F13)."""
        stats = self.slots(pool).stats()
        return stats.used == 0 and stats.idle == stats.total


def further_versions(directory: Path) -> Path:
    """Put the embedded library into a directory of versions, as the program of its version."""
    command = sys.executable, "-P", embedded_terraform.__file__
    answer = subprocess.run([*command, "version", "-json"], capture_output=True, check=True).stdout
    program = directory / json.loads(answer)["terraform_version"] / "terraform"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(LIBRARY.replace("{python}", command[0]).replace("{program}", command[2]))
    program.chmod(0o755)
    return directory


def start(home: Path, **facts: Any) -> System:
    """Start an embedded system under ``home`` and return what speaks to it."""
    wrapper = home.parent / "terraform-held"
    wrapper.write_text(WRAPPER.replace("{terraform}", shutil.which("terraform") or "terraform"))
    wrapper.chmod(0o755)
    versions = further_versions(home.parent / "versions")
    speed: dict[str, float | str] = {"cycle_seconds": 0.5, "dispatch_seconds": 1, "heartbeat_seconds": 1}
    options = Options(
        home=home,
        flower=False,
        settings=speed | {"terraform": str(wrapper), "terraform_versions": str(versions)} | facts,
    )
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TERRASLOT_HOME", str(home))
        detach(options)
        settings.cache_clear()
        config = Settings()
        from workers.app import build_app  # noqa: PLC0415 - reads the settings that exist only now

        app = build_app("tests", [], [], config)
    settings.cache_clear()
    return build(config, app)


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    base = tmp_path_factory.mktemp("cloud")
    system = start(base / "home")
    (base / "code").mkdir()
    yield Cloud(system, base / "code")
    system.database.dispose()
    system.celery.close()
    system.redis.close()
    down(base / "home")


@contextmanager
def serving(cloud: Cloud) -> Iterator[Ask]:
    """Run a dashboard of the running system; yield what asks it and returns the status and the answer."""
    home, port = cloud.system.settings.home, free_port()

    def ask(method: str, path: str, body: str = "", **headers: str) -> tuple[int, Any]:
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request(method, path, body=body, headers=PERSON | headers)
            answer = connection.getresponse()
            said = answer.read().decode()
            return answer.status, json.loads(said) if said.startswith("{") else said
        finally:
            connection.close()

    def answers() -> bool:
        assert process.poll() is None
        try:
            return ask("GET", "/healthcheck") == (200, "OK")
        except OSError:
            return False

    program = [sys.executable, "-m", "workers.dashboard", f"--port={port}", "--basic-auth=me:secret"]
    with subprocess.Popen(program, env=state.environment(home), cwd=home, stderr=subprocess.DEVNULL) as process:
        try:
            eventually(answers, timeout=120)
            yield ask
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def flower(cloud: Cloud) -> Iterator[Ask]:
    with serving(cloud) as ask:
        yield ask
