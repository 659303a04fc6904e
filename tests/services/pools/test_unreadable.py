"""A configuration that can not be read, of another version or written by hand, concerns itself alone (F36)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.services.conftest import POOL, ControlPlane
from workers.core.errors import Unreadable
from workers.core.lifecycle import RunStatus
from workers.core.pods import Pod, PodPhase
from workers.protocol.kinds import RunKind
from workers.services import health, workspaces
from workers.services.pool_state import status
from workers.services.pools import manage, views
from workers.services.scaling.cycle import cycle, cycles, dispatches, sweep
from workers.specs.pools import PoolSpec

WRONG = json.dumps({"name": "bad", "limits": {"max_agents": "lots"}})


def overwrite(control: ControlPlane, table: str, name: str, spec: str) -> None:
    with control.system.database.begin() as session:
        session.connection().exec_driver_sql(f"UPDATE {table} SET spec = ? WHERE name = ?", (spec, name))


@pytest.fixture(params=[WRONG, "{"], ids=["invalid", "no JSON"])
def bad(request: pytest.FixtureRequest, control: ControlPlane) -> ControlPlane:
    """A control plane with a pool ``bad`` that can't be read."""
    manage.create(control.system, PoolSpec(name="bad"))
    overwrite(control, "pools", "bad", request.param)
    return control


def test_every_pool_gets_its_cycle_and_its_dispatch(bad: ControlPlane) -> None:
    assert cycles(bad.system) == dispatches(bad.system) == ["bad", POOL]
    assert cycle(bad.system, POOL)


def test_runs_of_other_pools_go_on(bad: ControlPlane) -> None:
    bad.workspace()
    agent = bad.agent()
    run = bad.submit(RunKind.PLAN)
    agent.work(changed=False)
    assert bad.run(run.id).status is RunStatus.SUCCEEDED


def test_its_own_cycle_says_so_in_its_status(bad: ControlPlane) -> None:
    with pytest.raises(Unreadable, match="of the pool 'bad' can't be read"):
        cycle(bad.system, "bad")
    assert "of the pool 'bad' can't be read" in (status(bad.system, "bad") or "")
    assert status(bad.system, POOL) is None


def test_its_pods_are_no_orphans(bad: ControlPlane) -> None:
    bad.pods.pods["bad-1"] = Pod("bad-1", "uid", "bad", 0.0, PodPhase.RUNNING)
    assert sweep(bad.system) == 0
    assert "bad-1" in bad.pods.pods


def test_it_is_shown_as_that_beside_the_others(bad: ControlPlane) -> None:
    bad.agent()
    shown: dict[str, Any] = {pool.name: pool for pool in views.every(bad.system)}
    assert [(name, pool.type, len(pool.agents)) for name, pool in shown.items()] == [
        ("bad", "unreadable", 0),
        (POOL, "local", 1),
    ]
    assert "can't be read" in shown["bad"].status_message


def test_the_doctor_goes_on_and_names_it(bad: ControlPlane) -> None:
    assert health.database(bad.system).verdict == "ok"
    found = health.agents(bad.system)
    assert found.verdict == "warning"
    assert found.says.startswith("bad: The stored configuration of the pool 'bad' can't be read")


def test_a_run_that_can_not_be_read_concerns_its_pool_alone(control: ControlPlane) -> None:
    manage.create(control.system, PoolSpec(name="other"))
    control.workspace()
    control.agent()
    run = control.submit()
    with control.system.database.begin() as session:
        session.connection().exec_driver_sql("UPDATE runs SET task = '{' WHERE id = ?", (run.id,))
    assert [(pool.name, pool.type) for pool in views.every(control.system)] == [
        (POOL, "unreadable"),
        ("other", "local"),
    ]
    with pytest.raises(ValueError, match="Expecting"):
        cycle(control.system, POOL)
    assert "JSONDecodeError" in (status(control.system, POOL) or "")
    assert cycle(control.system, "other")


def test_a_workspace_that_can_not_be_read_hides_no_other(control: ControlPlane) -> None:
    control.workspace("bad")
    control.workspace("good")
    overwrite(control, "workspaces", "bad", WRONG)
    found, unreadable = workspaces.every(control.system)
    assert [spec.name for spec in found] == ["good"]
    (problem,) = unreadable
    assert str(problem).startswith("The stored configuration of the workspace 'bad' can't be read: ")
