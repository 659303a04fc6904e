"""What each step of a run costs at most in round trips to Redis and transactions; docs/performance.md says it.

A round trip is one send on a connection of redis-py, Celery's included; a pipeline is one. Events are sent by a thread
of their own, those of a tenth of a second together: no step waits for them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields
from typing import Any

import pytest
from redis.connection import AbstractConnection
from sqlalchemy import Engine, event

from tests.services.conftest import POOL, ControlPlane, HandAgent
from workers.protocol.kinds import RunKind
from workers.protocol.progress import Progress
from workers.services.pools import manage, views
from workers.services.runs import auto_apply, decide, deliver, dispatch, submit
from workers.services.runs.submit import RunRequest
from workers.specs.pools import PoolSpec


@dataclass
class Cost:
    """What a step cost. ``writing`` counts transactions; ``statements`` are those between their begin and end."""

    round_trips: int = 0
    transactions: int = 0
    writing: int = 0
    statements: int = 0


Measure = Callable[[str], AbstractContextManager[None]]

SAID = {
    "submit a plan, find it a slot and order it": Cost(2, 1, 1, 4),
    "submit a plan_and_apply, find it a slot and order it": Cost(2, 1, 1, 6),
    "submit one whose apply needs nobody, find it a slot and order it": Cost(3, 1, 1, 6),
    "redeem the order, and take the report of it": Cost(1, 1, 1, 2),
    "take the report of a plan that wants a confirmation": Cost(2, 1, 1, 6),
    "confirm, and order the apply": Cost(3, 2, 1, 7),
    "take the report of a plan whose apply needs nobody": Cost(1, 1, 1, 4),
    "order that apply": Cost(2, 2, 1, 6),
    "take the report that ends a run, release its slot, store its outcome and see that none waits": Cost(1, 3, 2, 8),
    "see who is next": Cost(4, 1, 0, 2),
    "claim the outcome of a part of a chain, and remember its delivery": Cost(0, 2, 2, 2),
}


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cost]:
    cost, step = Cost(), threading.current_thread()
    send = AbstractConnection.send_packed_command

    def sent(connection: Any, *arguments: Any, **options: Any) -> None:
        cost.round_trips += threading.current_thread() is step
        send(connection, *arguments, **options)

    def executed(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if threading.current_thread() is not step:
            return
        begins = statement.startswith("BEGIN")
        cost.transactions += begins
        cost.writing += statement == "BEGIN IMMEDIATE"
        cost.statements += not begins

    event.listen(Engine, "before_cursor_execute", executed)
    with monkeypatch.context() as patch:
        patch.setattr(AbstractConnection, "send_packed_command", sent)
        yield cost
    event.remove(Engine, "before_cursor_execute", executed)


@pytest.fixture
def costs(control: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> dict[str, Cost]:
    """What each step cost the second time: with connections open, and a server that knows the verbs."""
    found: dict[str, Cost] = {}

    @contextmanager
    def measure(step: str) -> Iterator[None]:
        with counted(monkeypatch) as cost:
            yield
        found[step] = cost

    control.workspace("net")
    control.workspace("auto", auto_apply=True)
    agent = control.agent()
    del control.system.celery.send_task  # messages are sent here, and carried out where a step says so
    for name in ("first", "second"):
        execute_three_runs(control, agent, name, measure)
    return found


def execute_three_runs(control: ControlPlane, agent: HandAgent, name: str, measure: Measure) -> None:
    """Execute a plan, a plan_and_apply that a person confirms, and one that needs nobody, from submission to end."""
    with measure("submit a plan, find it a slot and order it"):
        enqueue(control, RunKind.PLAN, "net", f"{name}-plan", chain=["the next task"])
    order = agent.order()
    with measure("redeem the order, and take the report of it"):
        assert agent.start(order)
    agent.finish(order, changed=False)
    dispatch.dispatch_requested(control.system, POOL)
    with measure("claim the outcome of a part of a chain, and remember its delivery"):
        assert deliver.claim(control.system, order.run)
        deliver.delivered(control.system, [order.run])

    with measure("submit a plan_and_apply, find it a slot and order it"):
        enqueue(control, RunKind.PLAN_AND_APPLY, "net", f"{name}-apply")
    order = agent.order()
    assert agent.start(order)
    with measure("take the report of a plan that wants a confirmation"):
        agent.finish(order)
    with measure("confirm, and order the apply"):
        decide.confirm(control.system, order.run)
    order = agent.order()
    assert agent.start(order)
    with measure("take the report that ends a run, release its slot, store its outcome and see that none waits"):
        agent.finish(order, progress=Progress(done=1))
    with measure("see who is next"):
        dispatch.dispatch_requested(control.system, POOL)

    with measure("submit one whose apply needs nobody, find it a slot and order it"):
        enqueue(control, RunKind.PLAN_AND_APPLY, "auto", f"{name}-auto")
    order = agent.order()
    assert agent.start(order)
    with measure("take the report of a plan whose apply needs nobody"):
        agent.finish(order)
    with measure("order that apply"):
        auto_apply.order_apply(control.system, order.run, order.token)
    agent.work()
    dispatch.dispatch_requested(control.system, POOL)


def enqueue(control: ControlPlane, kind: RunKind, workspace: str, run: str, **options: Any) -> None:
    task = {
        "name": f"terraform.{kind}",
        "args": [],
        "kwargs": {"workspace": workspace},
        "options": {"task_id": run, **options},
        "node": "control@tests",
    }
    submit.submit(control.system, run, kind, RunRequest(workspace=workspace), task)


@pytest.mark.parametrize("what", [field.name for field in fields(Cost)])
def test_no_step_of_a_run_costs_more_than_it_is_said_to(costs: dict[str, Cost], what: str) -> None:
    assert costs.keys() == SAID.keys()
    dearer = {
        step: getattr(cost, what) for step, cost in costs.items() if getattr(cost, what) > getattr(SAID[step], what)
    }
    assert dearer == {}


def test_a_look_at_all_pools_is_one_transaction_and_one_round_trip_however_many_there_are(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(50):
        manage.create(control.system, PoolSpec(name=f"pool-{number}"))
    control.agent()
    views.every(control.system)
    with counted(monkeypatch) as cost:
        found = views.every(control.system)
    assert (len(found), cost) == (51, Cost(round_trips=1, transactions=1, writing=0, statements=6))
    assert [len(pool.agents) for pool in found if pool.name == POOL] == [1]
