"""Agents of other versions of the protocol: what they are given, what the pool's status says, and how they go (F38)."""

from __future__ import annotations

from tests.services.conftest import POOL, ControlPlane
from workers.core.lifecycle import RunStatus
from workers.protocol.kinds import RunKind
from workers.protocol.messages import AgentRegistered
from workers.protocol.version import PROTOCOL
from workers.services import pool_state
from workers.services.pools import manage as pools
from workers.services.runs import report
from workers.services.scaling.cycle import cycle


def registered(control: ControlPlane, name: str, instance_id: str) -> None:
    """Let an agent of a pod of its own register, and say so."""
    control.pods.create(control.spec(), name)
    control.slots.register(name, instance_id)
    report.take(control.system, AgentRegistered(pool=POOL, agent=name))


def test_one_that_is_not_supported_is_given_nothing_and_is_replaced(control: ControlPlane) -> None:
    pools.ensure(control.system, control.spec())
    control.workspace()
    registered(control, "default-old", "0.life")

    run = control.submit(RunKind.PLAN)
    assert control.run(run.id).status is RunStatus.PENDING, "nothing is given to it from its registration on"
    cycle(control.system, POOL)

    assert control.pods.deleted == ["default-old"]
    said = pool_state.status(control.system, POOL) or ""
    assert "back" in said or "version 0 of the protocol" in said, said


def test_one_that_is_older_works_and_the_status_says_that_it_is_replaced_when_idle(control: ControlPlane) -> None:
    pools.ensure(control.system, control.spec())
    control.workspace()
    registered(control, "default-older", "life-of-version-1")

    run = control.submit(RunKind.PLAN)
    assert control.run(run.id).status is RunStatus.PLANNING
    cycle(control.system, POOL)

    said = pool_state.status(control.system, POOL) or ""
    assert "agents of an older version, default-older, are replaced when idle" in said


def test_of_agents_of_its_own_version_the_status_says_nothing(control: ControlPlane) -> None:
    pools.ensure(control.system, control.spec())
    registered(control, "default-new", f"{PROTOCOL}.life")
    cycle(control.system, POOL)
    assert pool_state.status(control.system, POOL) is None
