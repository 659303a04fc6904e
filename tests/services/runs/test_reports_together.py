"""Reports that wait are taken together, in one transaction, and a bad one stops no other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from tests.services.conftest import POOL, ControlPlane, HandAgent
from tests.services.runs.test_round_trips import counted
from workers.core.lifecycle import RunNote, RunStatus
from workers.protocol.errors import Unavailable
from workers.protocol.kinds import RunKind
from workers.protocol.messages import AgentStopped, Changes, Order, PhaseFinished, PhaseStarted, Report
from workers.reports import Reader
from workers.services.runs import finish, report, views
from workers.services.runs.undeliverable import receive_together
from workers.slots.report_queue import LONGEST, Found
from workers.store import runs

PLANS = 3


@pytest.fixture
def agent(control: ControlPlane) -> HandAgent:
    control.workspace()
    return control.agent()


def started(agent: HandAgent, count: int = PLANS) -> list[Order]:
    """Let plans be executed, whose reports nobody has taken."""
    for _ in range(count):
        agent.control.submit(RunKind.PLAN)
    orders = agent.orders()
    assert all(agent.control.slots.redeem(agent.name, order.run, order.token) for order in orders)
    return orders


def start(order: Order, **facts: Any) -> PhaseStarted:
    return PhaseStarted(**about(order), **facts)


def end(order: Order, **facts: Any) -> PhaseFinished:
    return PhaseFinished(**about(order), **{"outcome": "succeeded", **facts})


def about(order: Order) -> dict[str, Any]:
    return {"pool": POOL, "agent": "default-1", "run": order.run, "token": order.token, "phase": order.phase}


def read(control: ControlPlane, reports: Sequence[Report | bytes]) -> None:
    """Let the report reader find these in the queue of the pool."""
    contents = [each if isinstance(each, bytes) else each.model_dump_json().encode() for each in reports]
    reader = Reader(control.system)
    for left in receive_together(control.system, [Found(POOL, each[:LONGEST], len(each)) for each in contents]):
        reader._receive(left)


def statuses(control: ControlPlane, orders: Sequence[Order]) -> list[RunStatus]:
    return [control.run(order.run).status for order in orders]


def told(control: ControlPlane, order: Order) -> list[str]:
    return [
        event.event for event in views.events(control.system.database, views.one(control.system.database, order.run))
    ]


def test_starts_and_ends_are_taken_in_their_order_in_one_transaction(
    control: ControlPlane, agent: HandAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = started(agent)
    reports = [each for order in orders for each in (start(order), start(order, commit="c0ffee"), end(order))]
    with counted(monkeypatch) as cost:
        read(control, reports)
    assert statuses(control, orders) == [RunStatus.SUCCEEDED] * PLANS
    assert control.quiet()
    assert control.deliveries() == [order.run for order in orders]
    for order in orders:
        known = [RunNote.SUBMITTED, "dispatched", RunNote.PLAN_STARTED, RunNote.COMMIT_RESOLVED, "plan_finished"]
        assert told(control, order) == known
        assert control.run(order.run).commit == "c0ffee"
    assert cost.writing == 1


def test_each_end_is_followed_by_what_it_asks_for(control: ControlPlane) -> None:
    for name in ("waits", "cancelled", "auto"):
        control.workspace(name, auto_apply=name == "auto")
    agents = [control.agent(f"default-{number}") for number in range(4)]
    runs_of = {name: control.submit(RunKind.PLAN_AND_APPLY, name).id for name in ("waits", "cancelled", "auto")}
    runs_of["plan"] = control.submit(RunKind.PLAN, "waits").id
    orders = {order.run: order for agent in agents for order in agent.orders()}
    for order in orders.values():
        holder = control.run(order.run).agent
        assert control.slots.redeem(holder or "", order.run, order.token)
    finish.note(control.system, control.run(runs_of["cancelled"]), RunNote.CANCEL_REQUESTED, cancel_mode="interrupt")

    changed = {"changed": True, "changes": Changes(add=1)}
    read(control, [end(order, **changed) for order in orders.values()])

    ends = {name: control.run(run).status for name, run in runs_of.items()}
    assert ends == {"waits": "apply_pending", "cancelled": "cancelled", "auto": "applying", "plan": "succeeded"}
    assert (control.slots.stats().reserved, control.slots.stats().running) == (1, 1)
    assert control.celery_state(runs_of["waits"]) == "APPLY_PENDING"
    assert set(control.deliveries()) == {runs_of["cancelled"], runs_of["plan"]}


@pytest.mark.parametrize(
    "bad",
    [
        b"no JSON",
        b'{"type": "phase_finished", "pool": "other"}',
        b'{"type": "phase_finished", "pool": "default", "changes": "drifted"}',
        b'{"type": "phase_finished"' + b" " * LONGEST + b"}",
        PhaseFinished(pool=POOL, agent="a", run="none", token="x" * 16, phase="plan", outcome="succeeded"),
        PhaseStarted(pool=POOL, agent="a", run="none", token="x" * 16, phase="apply"),
    ],
    ids=["no JSON", "of another pool", "invalid", "too long", "an unknown end", "an unknown start"],
)
def test_one_that_can_not_be_taken_leaves_the_others_together(
    control: ControlPlane, agent: HandAgent, monkeypatch: pytest.MonkeyPatch, bad: Report | bytes
) -> None:
    orders = started(agent)
    with counted(monkeypatch) as cost:
        read(control, [end(orders[0]), bad, *map(end, orders[1:])])
    assert statuses(control, orders) == [RunStatus.SUCCEEDED] * PLANS
    assert control.quiet()
    assert cost.writing == 1


def test_one_that_raises_stops_no_other(
    control: ControlPlane, agent: HandAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = started(agent)
    record = runs.record

    def fail(session: Any, run: str, *facts: Any, **more: Any) -> Any:
        if run == orders[1].run:
            session.connection().exec_driver_sql("SELECT nonsense")
        return record(session, run, *facts, **more)

    monkeypatch.setattr(runs, "record", fail)
    read(control, [each for order in orders for each in (start(order), end(order))])
    assert statuses(control, orders) == [RunStatus.SUCCEEDED, RunStatus.PLANNING, RunStatus.SUCCEEDED]
    assert control.slots.stats().running == 1
    assert told(control, orders[0]).count(RunNote.PLAN_STARTED) == 1


def test_what_was_taken_before_is_taken_again_and_changes_nothing(control: ControlPlane, agent: HandAgent) -> None:
    orders = started(agent)
    for _ in range(2):
        read(control, [each for order in orders for each in (start(order), end(order), end(order))])
    assert control.quiet()
    assert control.deliveries() == [order.run for order in orders]
    assert told(control, orders[0]).count("plan_finished") == 1


def test_a_server_that_forgot_its_scripts_frees_every_slot(control: ControlPlane, agent: HandAgent) -> None:
    orders = started(agent)
    control.redis.script_flush()
    read(control, list(map(end, orders)))
    assert control.quiet()


def test_a_slot_that_can_not_be_freed_keeps_no_other_from_it(control: ControlPlane, agent: HandAgent) -> None:
    control.workspace("dns")
    orders = started(agent)
    control.redis.hset("ts:{default}:leases", orders[0].run, "nonsense")
    read(control, list(map(end, orders)))
    assert statuses(control, orders) == [RunStatus.SUCCEEDED] * PLANS
    assert control.slots.find(orders[1].run) is control.slots.find(orders[2].run) is None
    assert set(control.deliveries()) == {order.run for order in orders}


def test_a_server_that_is_away_meanwhile_loses_no_report_that_counts(
    control: ControlPlane, agent: HandAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = started(agent)

    def away(*_: object) -> None:
        raise Unavailable("The database does not answer.")

    with monkeypatch.context() as outage:
        outage.setattr(report, "_advance", away)
        read(control, list(map(end, orders)))
    assert statuses(control, orders) == [RunStatus.PLANNING] * PLANS
    reply = control.slots.heartbeat(agent.name, agent.instance_id, [], [order.token for order in orders])
    assert set(reply.repeat) == {order.token for order in orders}
    read(control, list(map(end, orders)))
    assert control.quiet()


def test_an_agent_that_stops_has_reported_before_it(control: ControlPlane, agent: HandAgent) -> None:
    (order,) = started(agent, 1)
    stopped = AgentStopped(pool=POOL, agent=agent.name, instance_id=agent.instance_id)
    read(control, [json.dumps(json.loads(stopped.model_dump_json())).encode(), start(order), end(order)])
    assert statuses(control, [order]) == [RunStatus.SUCCEEDED]
    assert control.slots.snapshot() == []
