"""A plan whose apply needs nobody may be told with its apply: what is on record is right at every moment."""

from __future__ import annotations

from typing import Any

import pytest

from tests.services.conftest import POOL, ControlPlane, HandAgent
from workers.core.approval import Actor, Approval
from workers.core.lifecycle import RunStatus
from workers.protocol.kinds import RunKind
from workers.protocol.messages import Changes, Order, PhaseStarted
from workers.protocol.plan_detail import PlanDetail
from workers.services import workspaces
from workers.services.runs import dispatch, finish
from workers.services.runs import report as reports
from workers.services.runs import views as run_views

DETAIL = PlanDetail.model_validate({"resources": [{"address": "a.b", "action": "delete"}]})
TOLD: dict[str, Any] = {"changes": Changes(destroy=1), "plan": DETAIL}


@pytest.fixture
def agent(control: ControlPlane) -> HandAgent:
    control.workspace(auto_apply=True)
    return control.agent()


def plans(control: ControlPlane, agent: HandAgent) -> Order:
    """Let a run be planned without a detail, and start its apply."""
    control.submit()
    planned = agent.order()
    assert (planned.auto_apply, agent.start(planned)) == (True, True)
    agent.finish(planned, changed=True, changes=Changes(), detail_follows=True)
    order = agent.order()
    assert (order.phase, order.auto_apply) == ("apply", False)
    return order


def shown(control: ControlPlane, order: Order) -> tuple[dict[str, int | None], PlanDetail | None]:
    run = run_views.one(control.system.database, order.run)
    return run.changes, run_views.plan(control.system.database, run)


def tells(control: ControlPlane, order: Order, **facts: Any) -> None:
    """Report the start of a phase, with what is known of its plan by then."""
    about = {"pool": POOL, "agent": "default-1", "run": order.run, "token": order.token, "phase": order.phase}
    reports.take(control.system, PhaseStarted(**about, **facts))


NOTHING_YET = ({"add": None, "change": None, "destroy": None}, None)
ALL = ({"add": 0, "change": 0, "destroy": 1}, DETAIL)


def test_a_plan_that_has_no_apply_is_read_at_once(control: ControlPlane, agent: HandAgent) -> None:
    control.submit(RunKind.PLAN)
    assert not agent.order().auto_apply


@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_it_is_on_record_once_it_is_told_also_where_that_report_is_lost(
    control: ControlPlane, agent: HandAgent, outcome: str
) -> None:
    order = plans(control, agent)
    assert control.run(order.run).status is RunStatus.APPLYING
    assert shown(control, order) == NOTHING_YET
    assert agent.start(order)
    agent.finish(order, outcome, **TOLD)
    assert shown(control, order) == ALL


def test_while_the_apply_executes_it_comes_with_a_repeated_start(control: ControlPlane, agent: HandAgent) -> None:
    order = plans(control, agent)
    assert agent.start(order)
    started = control.run(order.run).started_at
    for _ in range(2):
        tells(control, order, **TOLD)
    run = run_views.one(control.system.database, order.run)
    assert [each.event for each in run_views.events(control.system.database, run)][-2:] == [
        "apply started",
        "plan read",
    ]
    assert (shown(control, order), control.run(order.run).started_at) == (ALL, started)
    agent.finish(order)
    tells(control, order, changes=Changes(add=7), plan=PlanDetail())
    assert (shown(control, order), control.run(order.run).status) == (ALL, RunStatus.SUCCEEDED)


def test_a_start_that_was_not_heard_of_is_entered_with_it(control: ControlPlane, agent: HandAgent) -> None:
    order = plans(control, agent)
    assert control.slots.redeem(agent.name, order.run, order.token)
    tells(control, order, **TOLD)
    assert (shown(control, order), control.run(order.run).started_at is None) == (ALL, False)


def test_counts_of_a_lost_attempt_are_not_those_of_the_next(control: ControlPlane, agent: HandAgent) -> None:
    control.submit()
    first = agent.work(changes=Changes(add=5), plan=PlanDetail())
    control.slots.release(first.run, control.run(first.run).token)
    agent.orders()
    finish.requeue_or_fail(control.system, control.run(first.run), "its agent is gone", may_have_started=False)
    dispatch.dispatch(control.system, POOL)
    order = agent.order()
    assert agent.start(order)
    agent.finish(order, changed=True, changes=Changes(), detail_follows=True)
    assert (control.run(order.run).attempt, shown(control, order)) == (2, NOTHING_YET)


def test_where_people_have_to_confirm_after_all_nothing_is_confirmed_unseen(control: ControlPlane) -> None:
    control.workspace()
    agent = control.agent()
    control.submit(actor=Actor("ada"), auto_apply=True)
    order = agent.order()
    assert agent.start(order)
    spec = workspaces.get(control.system, "net")
    workspaces.update(control.system, spec.model_copy(update={"approval": Approval(four_eyes=True)}))
    agent.finish(order, changed=True, changes=Changes(), detail_follows=True)
    run = control.run(order.run)
    assert (run.status, "has changed while it was planned" in (run.error or "")) == (RunStatus.FAILED, True)


def test_an_agent_of_version_1_is_not_told_and_a_plan_for_people_is_told_with_it(control: ControlPlane) -> None:
    control.workspace(auto_apply=True)
    control.workspace("asks")
    control.pods.create(control.spec(), "default-1")
    older = HandAgent(control, "default-1", "life-1").register()
    control.submit()
    assert older.order().auto_apply is False
    control.pods.create(control.spec(), "default-2")
    newer = HandAgent(control, "default-2").register()
    control.submit(workspace="asks")
    assert newer.order().auto_apply is False
