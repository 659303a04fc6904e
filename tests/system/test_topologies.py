"""Redis servers as people have them, each from ``terraslot up`` to an applied run with a rotation in it (F48)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from tests import topologies
from tests.system.conftest import Cloud, start
from tests.topologies import URL
from tests.waiting import eventually
from workers.core.rotation import OVERLAP
from workers.embedded.background import down
from workers.services.pool_state import pool_lock
from workers.services.secrets import credentials
from workers.services.system import System

Servers = Callable[[Path], AbstractContextManager[dict[str, str]]]


@contextmanager
def running(directory: Path, servers: dict[str, str]) -> Iterator[Cloud]:
    """Run a system on these servers."""
    with pytest.MonkeyPatch.context() as environment:
        for name, url in servers.items():
            environment.setenv(name, url)
        (directory / "code").mkdir()
        system = start(directory / "home")
        try:
            yield Cloud(system, directory / "code")
        finally:
            down(directory / "home")
            system.database.dispose()
            system.celery.close()


def rotate(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue a new credential, and let the agents that are connected with the old one connect with it."""
    assert credentials.rotate(cloud.system, "default") == ["generation 2 issued"]
    real = System.now
    with monkeypatch.context() as ahead, pool_lock(cloud.system, "default") as spec:
        ahead.setattr(System, "now", lambda self: real(self) + timedelta(seconds=OVERLAP + 1))
        assert credentials.check_and_rotate_secret(cloud.system, spec) == ["generation 1 disconnected"]


@pytest.mark.parametrize(
    "servers",
    [
        topologies.broker_elsewhere,
        topologies.unix_socket,
        topologies.tls,
    ],
    ids=lambda servers: servers.__name__,
)
def test_from_up_to_an_applied_run_with_a_rotation_in_it(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with servers(tmp_path / "servers") as urls, running(tmp_path, urls) as cloud:
        assert not (tmp_path / "home" / "valkey").exists(), "no server is started beside one's own"
        run = cloud.reach(cloud.apply(cloud.workspace()), "APPLY_PENDING")
        agent = run.info["agent"]
        rotate(cloud, monkeypatch)
        eventually(lambda: agent in [found.name for found in cloud.slots().snapshot() if not found.silent])
        cloud.tell("confirm", run)
        applied = run.get(timeout=120)
        assert (applied["agent"], applied["outputs"]) == (agent, {"greeting": "hello world"})


def test_a_failover_in_the_middle_of_runs_loses_none(tmp_path: Path) -> None:
    with topologies.sentinels(tmp_path / "servers") as servers, running(tmp_path, {URL: servers.url}) as cloud:
        gate = cloud.gate()
        waiting = cloud.reach(cloud.apply(cloud.workspace()), "APPLY_PENDING")
        held = cloud.workspace(auto_apply=True, environment={"HOLD_APPLY": str(gate)})
        applying = cloud.reach(cloud.apply(held), "APPLYING", 60)
        cloud.started(applying)
        assert cloud.system.redis.wait(1, 5_000) == 1, "what was written is on the replica"

        servers.fail_over()

        gate.touch()
        assert applying.get(timeout=90)["status"] == "succeeded"
        cloud.tell("confirm", waiting)
        assert waiting.get(timeout=90)["status"] == "succeeded"
        assert [cloud.run(run).attempt for run in (waiting, applying)] == [1, 1]
        assert cloud.apply(cloud.workspace(auto_apply=True)).get(timeout=120)["status"] == "succeeded"
        assert cloud.system.redis.keys("ts:{default}:*"), "the slot map is in the database that the URL names"
        with redis.Redis(port=servers.primary()) as other:
            assert other.keys("*") == [], "nothing is in any other"
