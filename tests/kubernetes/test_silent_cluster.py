"""An API server that accepts connections and never answers (F37)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml
from celery import Celery

from tests.kubernetes.control import POOL, kubernetes_pool
from tests.kubernetes.double.cluster import Double
from tests.waiting import eventually
from workers.app import build_app
from workers.cluster.kubernetes.api import Api
from workers.cluster.kubernetes.backend import KubernetesPods
from workers.core.breaker import THRESHOLD
from workers.protocol import names
from workers.protocol.encryption import new_key
from workers.protocol.errors import Unavailable
from workers.protocol.sources import DirectorySource
from workers.services import workspaces
from workers.services.pool_state import status
from workers.services.scaling.cycle import cycle
from workers.services.system import System, build
from workers.settings import Settings
from workers.specs.workspaces import WorkspaceSpec
from workers.store import pools

POOLS = 16


class Silent:
    """A listening socket: the kernel accepts, and nobody answers."""

    def __init__(self, directory: Path) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.kubeconfig = directory / "kubeconfig"
        server = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        context = {"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "agents"}}
        self.kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "here", "cluster": {"server": server}}],
                    "users": [{"name": "me", "user": {}}],
                    "contexts": [context],
                    "current-context": "here",
                }
            )
        )
        self.accepted: list[socket.socket] = []

    def accept(self, count: int) -> None:
        """Wait for so many connections, and keep them."""
        self._socket.settimeout(60)
        while len(self.accepted) < count:
            self.accepted.append(self._socket.accept()[0])

    def close(self) -> None:
        for each in (*self.accepted, self._socket):
            each.close()


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[Silent]:
    server = Silent(tmp_path)
    yield server
    server.close()


@pytest.fixture
def system(tmp_path: Path, redis_url: str, silent: Silent) -> Iterator[System]:
    (tmp_path / "main.tf").touch()
    settings = Settings(
        home=tmp_path, redis_url=redis_url, broker_url="", database_url="", encryption_keys=new_key(),
        kubeconfig=str(silent.kubeconfig),
    )  # fmt: skip
    celery = build_app("test", [], [], settings)
    made = build(settings, celery)
    made.database.migrate()
    with made.database.begin() as session:
        for number in range(POOLS):
            pools.save(session, kubernetes_pool().model_copy(update={"name": f"{POOL}-{number}"}), made.now())
    workspaces.create(made, WorkspaceSpec(name="net", pool=f"{POOL}-0", source=DirectorySource(path=str(tmp_path))))
    yield made
    made.database.dispose()
    celery.close()
    made.redis.close()


@contextmanager
def worker(system: System, *options: str) -> Iterator[None]:
    config = system.settings
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TERRASLOT_")} | {
        "TERRASLOT_HOME": str(config.home),
        "TERRASLOT_REDIS_URL": config.redis_url,
        "TERRASLOT_ENCRYPTION_KEYS": config.encryption_keys.get_secret_value(),
        "TERRASLOT_KUBECONFIG": str(config.kubeconfig),
        "TERRASLOT_CYCLE_SECONDS": "6",  # over half of which the cycles are spread
    }
    program = [sys.executable, "-m", "celery", "-A", "workers", "worker", "--without-mingle", *options]
    with (config.home / "worker.log").open("ab") as log:
        process = subprocess.Popen(program, env=environment, cwd=config.home, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def test_what_people_ask_for_never_waits_behind_cycles(system: System, silent: Silent) -> None:
    """F37: sixteen pools on such a server keep every thread of the cluster's worker busy."""
    caller = Celery("caller", broker=system.settings.redis_url, backend=system.settings.redis_url, set_as_current=False)
    with ExitStack() as running:
        for name, queues in (("control", names.REQUEST_QUEUES), ("cluster", (names.CLUSTER_QUEUE,))):
            running.enter_context(worker(system, f"--hostname={name}@silent", f"--queues={','.join(queues)}"))
        run = caller.send_task("terraform.plan", args=["net"])
        eventually(lambda: run.state == "PENDING" and run.info, timeout=60)
        caller.send_task(names.CYCLES, queue=names.CLUSTER_QUEUE)
        silent.accept(8)  # one for each thread

        asked = time.monotonic()
        answer = caller.send_task("terraform.cancel", args=[run.id], queue=names.CONTROL_QUEUE).get(timeout=30)
        assert answer["status"] == "cancelled"
        assert time.monotonic() - asked < 1
    caller.close()


def test_what_an_older_version_has_sent_goes_on_to_the_workers_of_the_cluster(system: System) -> None:
    system.celery.send_task(names.CYCLE, args=[f"{POOL}-0"], queue=names.CONTROL_QUEUE, expires=60)
    with worker(system, "--hostname=control@silent", f"--queues={','.join(names.REQUEST_QUEUES)}"):
        eventually(lambda: system.redis.llen(names.CLUSTER_QUEUE), timeout=60)
    (message,) = system.redis.lrange(names.CLUSTER_QUEUE, 0, -1)
    assert b'"task": "terraslot.cycle"' in message
    assert b'"expires": null' not in message


def test_cycles_fail_at_once_after_a_few_in_vain_and_the_pools_say_so(system: System, silent: Silent) -> None:
    """F37: the threads of the cluster's worker are free for other clusters and local pools."""
    api = Api(str(silent.kubeconfig), read_seconds=0.6)
    clock = [0.0]
    api.gate.clock = lambda: time.monotonic() + clock[0]
    system.backends["kubernetes"] = KubernetesPods(api)  # type: ignore[index]
    for number in range(THRESHOLD):
        with pytest.raises(Unavailable, match="did not answer when asked to"):
            cycle(system, f"{POOL}-{number}")

    began = time.monotonic()
    for number in range(THRESHOLD, POOLS):
        with pytest.raises(Unavailable, match="not answered 3 times in a row"):
            cycle(system, f"{POOL}-{number}")
        assert "It is asked again after" in (status(system, f"{POOL}-{number}") or "")
    assert time.monotonic() - began < 0.2 * (POOLS - THRESHOLD)

    clock[0] += 60
    with pytest.raises(Unavailable, match="did not answer when asked to"):
        cycle(system, f"{POOL}-0")
    with pytest.raises(Unavailable, match="not answered 4 times in a row"):
        cycle(system, f"{POOL}-0")
    silent.close()
    clock[0] += 120
    with pytest.raises(Unavailable, match="did not answer when asked to"):
        cycle(system, f"{POOL}-0")  # refused at once; one that answers is asked as before


def test_an_answer_lets_all_calls_through(tmp_path: Path, silent: Silent, double: Double) -> None:
    kubeconfig = double.write_kubeconfig(tmp_path / "answers")
    api = Api(str(silent.kubeconfig), read_seconds=0.6)
    for _ in range(THRESHOLD):
        with pytest.raises(Unavailable):
            api.request("list", "pods")
    with pytest.raises(Unavailable, match="in a row"):
        api.request("list", "pods")
    api.close()
    api._kubeconfig = str(kubeconfig)
    api.gate.clock = lambda: time.monotonic() + 60
    for _ in range(2):
        assert api.request("list", "pods")["items"] == []
