"""What runs wait for is told from what the pool's last cycle has seen, to whoever asks, and goes with its cause."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.services.conftest import POOL, ControlPlane, HandAgent
from workers.core.errors import PodRefused
from workers.core.pods import Pod, PodPhase
from workers.protocol.errors import Unavailable
from workers.protocol.kinds import RunKind
from workers.services import pool_state
from workers.services.pools import manage as pools
from workers.services.runs import waiting
from workers.services.scaling.cycle import cycle
from workers.store import pools as stored_pools

PLAN = RunKind.PLAN


def info(control: ControlPlane, run: str) -> Any:
    return control.system.celery.AsyncResult(run).info


def why(control: ControlPlane, run: str) -> str | None:
    return waiting.reasons(control.system, (run,)).get(run)


def test_a_polling_caller_is_told_as_a_person_is_until_the_run_starts(control: ControlPlane) -> None:
    control.workspace()
    first, second = control.submit(), control.submit()
    cycle(control.system, POOL)
    for run, said in (
        (first, "no agent accepts runs (first in line); 1 pod is starting"),
        (second, "other runs of the workspace come first (1 in front)"),
    ):
        assert info(control, run.id)["waiting"] == why(control, run.id) == said
        assert info(control, run.id)["waiting_at"] <= control.system.now().isoformat()
    HandAgent(control, *control.pods.pods).register()
    cycle(control.system, POOL)
    assert info(control, first.id)["status"] == "planning"
    assert "waiting" not in info(control, first.id)
    assert info(control, second.id)["waiting"] == f"the workspace is busy with run {first.id}, planning (first in line)"
    assert why(control, first.id) is None


def test_what_the_cluster_refuses_is_told_until_it_does_not(
    control: ControlPlane, clock_ahead: Callable[[float], None]
) -> None:
    control.workspace()
    run = control.submit(PLAN)
    control.pods.refusal = PodRefused("The cluster refuses to create pods: no gold.")
    for seconds in (0, 5):
        clock_ahead(seconds)
        cycle(control.system, POOL)
        assert pool_state.status(control.system, POOL) == "The cluster refuses to create pods: no gold."
        said = "no agent accepts runs (first in line); The cluster refuses to create pods: no gold."
        assert why(control, run.id) == info(control, run.id)["waiting"] == said
    control.pods.refusal = None
    clock_ahead(30)
    cycle(control.system, POOL)
    assert pool_state.status(control.system, POOL) is None
    assert why(control, run.id) == "no agent accepts runs (first in line); 1 pod is starting"


def test_what_refused_pods_that_nobody_needs_any_more_is_not_told(control: ControlPlane) -> None:
    control.workspace()
    control.submit(PLAN)
    control.pods.refusal = PodRefused("The cluster refuses to create pods: no gold.")
    cycle(control.system, POOL)
    control.agent()
    cycle(control.system, POOL)
    assert pool_state.status(control.system, POOL) is None


def test_a_status_lasts_as_long_as_its_cause(control: ControlPlane, clock_ahead: Callable[[float], None]) -> None:
    with control.system.database.begin() as session:
        stored_pools.set_status(session, POOL, "already at the maximum of 5", control.system.now())
    cycle(control.system, POOL)
    assert pool_state.status(control.system, POOL) is None, "of a version that did not end it"

    control.agent()
    control.pods.pods["default-1"] = Pod("default-1", "uid-default-1", POOL, 0.0, PodPhase.FAILED, reason="Evicted")
    cycle(control.system, POOL)
    assert control.pods.deleted == ["default-1"]
    assert pool_state.status(control.system, POOL) is None, "that it was deleted keeps the pool from nothing"


def test_a_cluster_that_does_not_answer_is_what_runs_wait_for(control: ControlPlane) -> None:
    control.workspace()
    run = control.submit(PLAN)
    cycle(control.system, POOL)
    control.pods.broken = True
    with pytest.raises(Unavailable):
        cycle(control.system, POOL)
    said = "no agent accepts runs (first in line); 1 pod is starting; The cluster does not answer."
    assert why(control, run.id) == said
    assert pool_state.status(control.system, POOL) == "The cluster does not answer."


def test_runs_say_that_their_pool_is_at_its_maximum_as_long_as_it_is(control: ControlPlane) -> None:
    spec = control.spec()
    limits = spec.limits.model_copy(update={"max_agents": 1})
    pools.update(control.system, spec.model_copy(update={"limits": limits}))
    agent = control.agent()
    for name in ("a", "b", "c"):
        control.workspace(name)
    first, _, last = (control.submit(workspace=name) for name in ("a", "b", "c"))
    cycle(control.system, POOL)
    assert why(control, last.id) == "no apply slot is free (1 in front); the pool is at its maximum of 1 agent"
    agent.work(changed=False)
    assert control.run(first.id).status.is_over
    assert why(control, last.id) == "no apply slot is free (first in line); the pool is at its maximum of 1 agent"
    pools.update(control.system, spec)
    assert why(control, last.id) == "no apply slot is free (first in line)"
