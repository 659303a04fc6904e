"""Where a slot is free and nobody waits, a run is started as it is entered; else the dispatcher decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis
from sqlalchemy import inspect

from tests.services.conftest import ControlPlane, HandAgent
from workers.core.lifecycle import RunEvent, RunNote, RunStatus
from workers.core.waiting import MaintenanceLock
from workers.protocol.errors import TerraslotError
from workers.protocol.kinds import RunKind
from workers.services.runs import orders, submit, views
from workers.services.runs.submit import RunRequest
from workers.slots.slot_map import SlotMap
from workers.store import pools, runs, workspace_queue
from workers.store.models import Run

PLAN, APPLY = RunKind.PLAN, RunKind.PLAN_AND_APPLY


@pytest.fixture
def agent(control: ControlPlane) -> HandAgent:
    for name in ("net", "dns", "www"):
        control.workspace(name)
    return control.agent()


@pytest.fixture
def entered(control: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Return what submits a run that no dispatcher starts."""
    monkeypatch.setattr(submit, "dispatch_new", lambda *_: None)
    return lambda kind=PLAN, workspace="net", **options: control.submit(kind, workspace, **options)


@pytest.mark.parametrize("kind", RunKind, ids=str)
def test_it_has_its_slot_its_order_and_its_history(
    control: ControlPlane, agent: HandAgent, entered: Callable[..., Run], kind: RunKind
) -> None:
    run = entered(kind)
    order = agent.order()
    assert (run.status, run.attempt, run.token) == (RunStatus.PLANNING, 1, order.token)
    assert control.celery_state(run.id) == "PLANNING"
    database = control.system.database
    told = views.events(database, views.one(database, run.id))
    assert [(each.event, each.status) for each in told] == [
        (RunNote.SUBMITTED, RunStatus.PENDING),
        (RunEvent.DISPATCHED, RunStatus.PLANNING),
    ]
    assert agent.start(order)
    agent.finish(order, changed=False)
    assert control.quiet()


def test_what_is_returned_is_what_is_stored(control: ControlPlane, agent: HandAgent) -> None:
    task: Any = {"name": "terraform.plan", "args": [], "kwargs": {"workspace": "net"}, "options": {"task_id": "a"}}
    returned = submit.submit(control.system, "a", PLAN, RunRequest(workspace="net", message="why", priority=3), task)
    stored = control.run("a")
    columns = [column.key for column in inspect(Run).columns]
    assert {name: getattr(returned, name) for name in columns} == {name: getattr(stored, name) for name in columns}
    assert agent.order().run == "a"


def test_the_same_id_again_changes_nothing_and_takes_no_slot(control: ControlPlane, agent: HandAgent) -> None:
    task: Any = {"name": "terraform.plan", "args": [], "kwargs": {"workspace": "net"}, "options": {"task_id": "a"}}
    for _ in range(2):
        assert submit.submit(control.system, "a", PLAN, RunRequest(workspace="net"), task).attempt == 1
    agent.work(changed=False)
    assert submit.submit(control.system, "a", PLAN, RunRequest(workspace="net"), task).status is RunStatus.SUCCEEDED
    assert control.quiet()
    assert agent.orders() == []


def test_it_passes_nobody_who_waits_for_such_a_slot(
    control: ControlPlane, agent: HandAgent, entered: Callable[..., Run]
) -> None:
    for _ in range(3):
        entered()
    before = entered()
    first = agent.orders()[0]
    assert control.slots.release(first.run, first.token)  # and nobody has been woken yet
    assert entered().status is control.run(before.id).status is RunStatus.PENDING
    assert control.slots.find("run-5") is None


def test_a_plan_takes_no_slot_0_for_which_an_apply_waits(
    control: ControlPlane, agent: HandAgent, entered: Callable[..., Run]
) -> None:
    held = entered(APPLY, "dns")
    entered(APPLY, "www")
    assert entered().slot in {1, 2}, "which are of no use to it"
    assert entered().slot in {1, 2}
    assert control.slots.release(held.id, held.token or "")
    assert entered().status is RunStatus.PENDING
    assert control.slots.stats().free_apply == 1


def test_it_waits_for_its_workspace(control: ControlPlane, agent: HandAgent, entered: Callable[..., Run]) -> None:
    control.agent("default-2")
    entered(APPLY)
    assert entered(APPLY).status is RunStatus.PENDING
    with control.system.database.begin() as session:
        lock = MaintenanceLock("ann", control.system.now(), "moving")
        workspace_queue.set_maintenance_lock(session, "dns", lock, control.system.now())
    assert entered(APPLY, "dns").status is RunStatus.PENDING
    assert entered(PLAN, "dns").status is RunStatus.PLANNING, "a plan does not queue"
    assert control.slots.stats().used == 2


def test_a_pool_that_drains_starts_nothing(
    control: ControlPlane, agent: HandAgent, entered: Callable[..., Run]
) -> None:
    with control.system.database.begin() as session:
        pools.update(session, control.spec().model_copy(update={"draining": True}), control.system.now())
    assert entered().status is RunStatus.PENDING
    assert control.quiet()


@pytest.mark.parametrize("error", [ValueError("a fault"), orders.NotMade("no"), redis.ConnectionError("away")])
@pytest.mark.parametrize("where", [(SlotMap, "acquire"), (orders, "make"), (runs, "add")], ids=["slot", "order", "add"])
def test_an_error_takes_no_slot_and_refuses_no_run_that_can_be_entered(
    agent: HandAgent,
    entered: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
    where: tuple[Any, str],
    error: Exception,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(*where, fail)
        if where[1] == "add":
            with pytest.raises(type(error)):
                entered()
        else:
            assert entered().status is RunStatus.PENDING
    assert agent.control.quiet()
    assert agent.orders() == []


def test_a_statement_that_fails_as_the_order_is_made_leaves_the_run_entered(
    control: ControlPlane, agent: HandAgent, entered: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_system: object, session: Any, *_: object, **__: object) -> None:
        session.connection().exec_driver_sql("SELECT nonsense")

    monkeypatch.setattr(orders, "make", fail)
    assert entered().status is RunStatus.PENDING
    assert control.quiet()


def test_a_request_that_is_refused_takes_no_slot(control: ControlPlane, agent: HandAgent) -> None:
    with pytest.raises(TerraslotError):
        control.submit(PLAN, "none")
    assert control.slots.snapshot()[0].leases == ()
    assert agent.orders() == []
