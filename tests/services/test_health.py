"""What the doctor finds out about servers, on real ones that are not in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from tests.services.conftest import ControlPlane
from tests.topologies import server
from workers.services import health
from workers.services.health import Finding

Examine = Callable[..., Finding]


@pytest.fixture
def examine(control: ControlPlane, tmp_path: Path) -> Examine:
    """Return what examines a server with a configuration of its own."""

    def found(*options: str, fill: int = 0) -> Finding:
        with server(tmp_path / "server", *options) as port, redis.Redis(port=port) as client:
            for number in range(fill):
                client.set(f"filling-{number}", b"x" * 2**20)
            return health.redis(replace(control.system, redis=client))

    return found


def test_memory_in_use_is_told_and_a_server_that_is_nearly_full_is_named(examine: Examine) -> None:
    full = examine("maxmemory 64mb", "maxmemory-policy noeviction", "appendonly yes", fill=54)
    assert (full.verdict, full.hint) == ("warning", "Raise maxmemory: a server that is full takes no run any more.")
    assert "MiB in use of 64 MiB" in full.says


@pytest.mark.parametrize(
    ("options", "verdict", "says"),
    [
        (["appendonly yes"], "ok", "persistent"),
        ([], "warning", "not persistent"),
        (["maxmemory 100mb", "maxmemory-policy allkeys-lru"], "wrong", "may evict keys"),
        (["appendonly yes", "maxmemory 100mb", "maxmemory-policy noeviction"], "ok", "of 100 MiB"),
    ],
)
def test_persistence_and_eviction_are_told(examine: Examine, options: list[str], verdict: str, says: str) -> None:
    found = examine(*options)
    assert found.verdict == verdict
    assert says in found.says
    assert (found.hint is None) is (verdict == "ok")


def test_a_redis_cluster_is_refused(examine: Examine) -> None:
    found = examine("cluster-enabled yes")
    assert (found.verdict, found.hint) == ("wrong", "Use one primary, with sentinels if you like.")


def test_every_pool_can_have_users_of_its_own(control: ControlPlane) -> None:
    assert health.agents_users(control.system).verdict == "ok"


@pytest.mark.parametrize(("ahead", "verdict"), [(0.0, "ok"), (300.0, "warning"), (-300.0, "warning")])
def test_a_clock_that_disagrees_is_named(control: ControlPlane, ahead: float, verdict: str) -> None:
    control.pods.ahead = ahead
    found = health.clocks(control.system)
    assert found.verdict == verdict
    assert "the cluster of local pools" in found.says
    assert verdict == "ok" or f"{ahead:+.1f} s" in found.says
