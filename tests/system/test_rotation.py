"""Rotation of a pool's credential under real agents that are at work (F27)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import redis
from redis.exceptions import AuthenticationError

from tests.system.conftest import Cloud
from tests.waiting import eventually
from workers.core.rotation import OVERLAP, RECONNECT
from workers.protocol.sources import SensitiveVariables
from workers.services.pool_state import pool_lock
from workers.services.pools import manage as pools
from workers.services.secrets import credentials
from workers.services.secrets.variables import Change
from workers.services.system import System
from workers.slots import acl

SECRETIVE = """
variable "word" {
  type      = string
  sensitive = true
}
resource "terraform_data" "it" { input = length(var.word) }
output "length" { value = terraform_data.it.output }
"""
Later = Callable[[str, float], list[str]]


def secret(cloud: Cloud, pool: str) -> dict[str, Any]:
    return json.loads((cloud.system.settings.home / "secrets" / pool / "pool.json").read_text())


def in_use(cloud: Cloud, pool: str) -> set[str]:
    return {user for user in acl.Users(cloud.system.redis).in_use() if user.startswith(f"ts-{pool}-")}


@contextmanager
def as_agent(cloud: Cloud, found: dict[str, Any]) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(
        cloud.system.settings.redis.public, username=found["username"], password=found["password"]
    ) as client:
        yield client


@pytest.fixture
def later(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Later:
    """Return what does the next step of a rotation, as a cycle would so many seconds later."""
    real = System.now

    def step(pool: str, seconds: float) -> list[str]:
        with monkeypatch.context() as ahead, pool_lock(cloud.system, pool):
            ahead.setattr(System, "now", lambda self: real(self) + timedelta(seconds=seconds))
            return credentials.check_and_rotate_secret(cloud.system, cloud.system.pool(pool))

    return step


def test_an_agent_follows_a_rotation_at_work_and_the_old_credential_opens_nothing_any_more(
    cloud: Cloud, later: Later
) -> None:
    """F27: an apply and a plan are under way, a plan that waits is kept, and no agent is started anew."""
    pool = cloud.pool(min_agents=2, max_agents=2)
    word = SensitiveVariables(variables={"word": "rotation"})
    pools.update(cloud.system, cloud.system.pool(pool), Change(word))
    plan_gate, apply_gate = cloud.gate(), cloud.gate()
    waiting = cloud.reach(cloud.apply(cloud.workspace(SECRETIVE, pool=pool)), "APPLY_PENDING")
    keeper = waiting.info["agent"]
    held = cloud.workspace(SECRETIVE, pool=pool, auto_apply=True, environment={"HOLD_APPLY": str(apply_gate)})
    applying = cloud.reach(cloud.apply(held), "APPLYING")
    cloud.started(applying)
    planning = cloud.plan(cloud.workspace(SECRETIVE, pool=pool, environment={"HOLD_PLAN": str(plan_gate)}))
    cloud.started(planning)
    agents = {agent.name: agent.instance_id for agent in cloud.slots(pool).snapshot()}
    before = secret(cloud, pool)

    assert credentials.rotate(cloud.system, pool) == ["generation 2 issued"]
    after = secret(cloud, pool)
    assert (after["username"], before["username"]) == (f"ts-{pool}-2", f"ts-{pool}-1")
    assert f"ts-{pool}-1" in in_use(cloud, pool)

    assert later(pool, OVERLAP + 1) == ["generation 1 disconnected"]
    plan_gate.touch()
    assert planning.get(timeout=120)["outputs"] == {}
    eventually(lambda: in_use(cloud, pool) == {f"ts-{pool}-2"})
    assert later(pool, OVERLAP + RECONNECT / 2) == []  # somebody might be between two connections
    assert later(pool, OVERLAP + RECONNECT + 60) == ["generation 1 retired"]
    with as_agent(cloud, before) as client, pytest.raises(AuthenticationError):
        client.ping()
    with as_agent(cloud, after) as client:
        assert client.ping()

    assert applying.state == "APPLYING"
    apply_gate.touch()
    assert applying.get(timeout=120)["agent"] in agents
    cloud.tell("confirm", waiting)
    assert waiting.get(timeout=120)["agent"] == keeper
    assert {agent.name: agent.instance_id for agent in cloud.slots(pool).snapshot()} == agents
    assert [cloud.run(result).attempt for result in (waiting, applying, planning)] == [1, 1, 1]

    further = cloud.apply(cloud.workspace(SECRETIVE, pool=pool, auto_apply=True))
    assert further.get(timeout=120)["outputs"] == {"length": 8}
    eventually(lambda: cloud.quiet(pool))
    assert in_use(cloud, pool) == {f"ts-{pool}-2"}
