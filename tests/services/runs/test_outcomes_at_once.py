"""An outcome that no workflow waits for is stored by the process that ends the run; every other goes through Celery."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.services.conftest import ControlPlane, HandAgent
from workers.core.errors import RunCancelled, RunFailed
from workers.protocol.kinds import RunKind
from workers.services.runs import decide, deliver, outcome, submit
from workers.services.runs.submit import RunRequest

NODE = "control@tests"
LATER = 91  # seconds: a minute, and a cycle
CALLBACK = {"task": "callers.own", "args": [], "kwargs": {}, "options": {}}


@pytest.fixture
def agent(control: ControlPlane) -> HandAgent:
    control.workspace()
    return control.agent()


def enqueue(control: ControlPlane, kind: RunKind = RunKind.PLAN, *, node: str | None = NODE, **options: Any) -> str:
    """Submit a run as a worker with this name does."""
    task: Any = {"name": f"terraform.{kind}", "args": [], "kwargs": {"workspace": "net"}}
    task |= {"options": {"task_id": "run", **options}} | ({"node": node} if node else {})
    return submit.submit(control.system, "run", kind, RunRequest(workspace="net"), task).id


def stored(control: ControlPlane, run: str) -> dict[str, Any]:
    return dict(control.system.celery.backend.get_task_meta(run))


def test_a_plan_that_nothing_waits_for_needs_no_message(control: ControlPlane, agent: HandAgent) -> None:
    run = enqueue(control, group_id="a-group", parent_id="a-task")
    agent.work(changed=False, outputs={"greeting": "hello"})
    assert control.deliveries() == []
    assert control.run(run).delivered_at is not None
    assert control.system.celery.AsyncResult(run).get(timeout=1) == outcome.result_of(control.run(run))
    kept = stored(control, run)
    assert (kept["status"], kept["group_id"], kept["parent_id"]) == ("SUCCESS", "a-group", "a-task")
    assert kept["date_done"] is not None
    assert control.redis.ttl(f"celery-task-meta-{run}") > 29 * 86400
    assert deliver.claim(control.system, run) is None, "the same task again stores nothing"


def test_an_error_is_raised_where_the_caller_waits(control: ControlPlane, agent: HandAgent) -> None:
    run = enqueue(control)
    agent.work(outcome="failed", reason="terraform_failed", error="no such region")
    with pytest.raises(RunFailed, match="no such region"):
        control.system.celery.AsyncResult(run).get(timeout=1)
    assert control.deliveries() == []


def test_a_run_that_is_cancelled_before_it_starts_says_so_at_once(control: ControlPlane) -> None:
    control.workspace()
    run = enqueue(control, RunKind.PLAN_AND_APPLY)
    decide.cancel(control.system, run)
    with pytest.raises(RunCancelled):
        control.system.celery.AsyncResult(run).get(timeout=1)
    assert control.deliveries() == []


@pytest.mark.parametrize(
    "waiting",
    [
        {"link": [CALLBACK]},
        {"link_error": [CALLBACK]},
        {"chain": [CALLBACK]},
        {"chord": CALLBACK, "group_id": "a-group"},
        {"node": None},
    ],
    ids=["link", "link_error", "chain", "chord", "a run of 0.1"],
)
def test_what_waits_for_it_is_continued_by_celery(
    control: ControlPlane, agent: HandAgent, waiting: dict[str, Any]
) -> None:
    run = enqueue(control, **waiting)
    agent.work(changed=False)
    assert control.deliveries() == [run]
    assert control.run(run).delivered_at is None
    assert control.celery_state(run) == "PLANNING"
    assert deliver.claim(control.system, run) is not None


@pytest.mark.parametrize("step", ["result_step", "delivered"])
def test_a_process_that_dies_as_it_stores_it_leaves_it_to_celery(
    control: ControlPlane,
    agent: HandAgent,
    clock_ahead: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    def die(*_: object) -> None:
        raise SystemExit

    run = enqueue(control)
    with monkeypatch.context() as dying:
        dying.setattr(deliver, step, die)
        with pytest.raises(SystemExit):
            agent.work(changed=False)
    assert deliver.claim(control.system, run) is None, "it is claimed"
    assert deliver.deliver_overdue(control.system) == 0
    clock_ahead(LATER)
    assert deliver.deliver_overdue(control.system) == 1
    assert control.deliveries() == [run]
    assert deliver.claim(control.system, run) is not None
