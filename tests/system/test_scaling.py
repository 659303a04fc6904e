"""Local pools from zero to the maximum and back, and the scenarios of SEEDS S22 with real agents."""

from __future__ import annotations

from tests.system.conftest import Cloud
from tests.waiting import eventually
from workers.protocol.kinds import RunKind
from workers.services.pool_state import pool_lock
from workers.services.scaling import scale
from workers.store import decisions, workspace_queue


def pending(cloud: Cloud, pool: str) -> tuple[int, int]:
    with cloud.system.database.read() as session:
        found = workspace_queue.pending_by_requirement(session, pool)
    return found.get((RunKind.PLAN, None), 0), found.get((RunKind.PLAN_AND_APPLY, None), 0)


def test_a_pool_grows_from_zero_to_its_maximum_and_back_to_zero_when_idle(cloud: Cloud) -> None:
    pool = cloud.pool(max_agents=2, idle_timeout=1, step=2)
    gate = cloud.gate()
    workspaces = [cloud.workspace(pool=pool, environment={"HOLD_PLAN": str(gate)}) for _ in range(3)]
    assert cloud.pods(pool) == []
    with pool_lock(cloud.system, pool):  # the first decision sees all nine runs
        results = [cloud.plan(workspace) for workspace in workspaces for _ in range(3)]
        eventually(lambda: pending(cloud, pool) == (9, 0))
    eventually(lambda: cloud.slots(pool).stats().running == 6)
    assert len(cloud.pods(pool)) == 2
    gate.touch()
    assert {result.get(timeout=120)["status"] for result in results} == {"succeeded"}
    eventually(lambda: cloud.pods(pool) == [] and cloud.slots(pool).snapshot() == [])
    with cloud.system.database.read() as session:
        changes = [(row.current, row.desired, row.reason) for row in decisions.recent(session, pool, limit=20)]
    assert changes[-1] == (0, 2, "runs wait and there is no agent")
    assert (1, 0, "utilisation below 20 % and an agent idle long enough") in changes


def test_scale_down_protection(cloud: Cloud) -> None:
    """S22: three pods with a run each, scaled to two: none is killed."""
    pool = cloud.pool(max_agents=3, step=3)
    gate = cloud.gate()
    results = [cloud.apply(cloud.workspace(pool=pool, environment={"HOLD_PLAN": str(gate)})) for _ in range(3)]
    before = eventually(lambda: cloud.slots(pool).stats().running == 3 and cloud.pods(pool))
    assert len(before) == 3
    assert scale.scale_pods(cloud.system, cloud.system.pool(pool), 2) == 0
    gate.touch()
    for result in results:
        cloud.reach(result, "APPLY_PENDING")
    assert cloud.pods(pool) == before
    for result in results:
        cloud.tell("discard", result)


def test_reserved_protection(cloud: Cloud) -> None:
    """S22: a plan_and_apply waits for its confirmation; its pod stays, and the apply runs on it."""
    pool = cloud.pool(max_agents=3, min_agents=2)
    result = cloud.reach(cloud.apply(cloud.workspace(pool=pool)), "APPLY_PENDING")
    keeper = result.info["agent"]
    eventually(lambda: cloud.slots(pool).stats().agents == 2)
    scale.scale_pods(cloud.system, cloud.system.pool(pool), 0)
    eventually(lambda: all(agent.draining for agent in cloud.slots(pool).snapshot() if agent.name != keeper))
    assert keeper in cloud.pods(pool)
    cloud.tell("confirm", result)
    assert result.get(timeout=120)["agent"] == keeper


def test_utilisation(cloud: Cloud) -> None:
    """S22: one pod with three plans is 100 % and adds one; when they are done, 0 % removes one after the other."""
    pool = cloud.pool(max_agents=3, idle_timeout=0.5)
    gate = cloud.gate()
    workspace = cloud.workspace(pool=pool, environment={"HOLD_PLAN": str(gate)})
    results = [cloud.plan(workspace) for _ in range(3)]
    eventually(lambda: len(cloud.pods(pool)) == 2 and cloud.slots(pool).stats().running == 3)
    gate.touch()
    for result in results:
        result.get(timeout=120)
    eventually(lambda: cloud.pods(pool) == [])
    with cloud.system.database.read() as session:
        steps = [(row.current, row.desired) for row in decisions.recent(session, pool, limit=20)]
    assert steps[-2:] == [(1, 2), (0, 1)]
    assert {(2, 1), (1, 0)} <= set(steps)
    assert all(abs(desired - current) <= 1 for current, desired in steps)
