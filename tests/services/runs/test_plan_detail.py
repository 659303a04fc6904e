"""What a plan would do with each resource: stored with its attempt, and only as long as its run is on record."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from workers.core.lifecycle import RunStatus
from workers.protocol.kinds import RunKind
from workers.protocol.messages import Changes
from workers.protocol.plan_detail import MAX_PLAN_BYTES, PlanDetail
from workers.services.runs import dispatch, finish
from workers.services.runs import views as run_views
from workers.store import retention, runs
from workers.store.models import Run, RunPlan

DETAIL = PlanDetail.model_validate(
    {
        "resources": [
            {"address": "a.old", "action": "delete"},
            {"address": "a.b", "action": "update", "attributes": [{"path": "size", "before": 1, "after": 2}]},
        ],
        "left_out": {"create": 3},
    }
)
DESTROYS = {"changes": Changes(change=1, destroy=1), "plan": DETAIL}


def shown(control, run):
    database = control.system.database
    return run_views.plan(database, run_views.one(database, run.id))


@pytest.mark.parametrize(
    ("kind", "auto_apply", "status"),
    [
        (RunKind.PLAN, False, RunStatus.SUCCEEDED),
        (RunKind.PLAN_AND_APPLY, False, RunStatus.APPLY_PENDING),
        (RunKind.PLAN_AND_APPLY, True, RunStatus.APPLYING),
    ],
)
def test_it_is_stored_with_what_the_plan_leads_to(control, kind, auto_apply, status):
    control.workspace()
    agent = control.agent()
    run = control.submit(kind, auto_apply=auto_apply)
    agent.work(**DESTROYS)
    assert control.run(run.id).status is status
    assert shown(control, run) == DETAIL
    assert run_views.one(control.system.database, run.id).plan_destroys


def test_a_report_that_comes_twice_changes_nothing(control):
    control.workspace()
    agent = control.agent()
    run = control.submit()
    order = agent.work(**DESTROYS)
    agent.finish(order, plan=PlanDetail())
    assert shown(control, run) == DETAIL


def test_a_plan_that_is_gone_is_not_shown_and_the_next_one_takes_its_place(control):
    control.workspace()
    agent = control.agent()
    run = control.submit()
    order = agent.work(**DESTROYS)
    finish.requeue_or_fail(control.system, control.run(run.id), "its agent is gone", may_have_started=False)
    assert shown(control, run) is None
    control.slots.release(run.id, order.token)
    dispatch.dispatch(control.system, "default")
    assert shown(control, run) is None
    agent.work(plan=PlanDetail())
    assert shown(control, run) == PlanDetail()


def test_an_agent_of_an_earlier_version_tells_none(control):
    control.workspace()
    agent = control.agent()
    run = control.submit()
    agent.work(changes=Changes(destroy=1))
    assert shown(control, run) is None
    assert run_views.one(control.system.database, run.id).plan_destroys


def test_it_goes_with_its_run(control):
    control.workspace()
    agent = control.agent()
    run = control.submit(RunKind.PLAN)
    agent.work(**DESTROYS)
    now = control.system.now()
    with control.system.database.begin() as session:
        runs.mark_delivered(session, [run.id], now)
    with control.system.database.begin() as session:
        assert retention.purge(session, Run, control.system.now(), 10) == 1
        assert session.query(RunPlan).count() == 0


@pytest.mark.parametrize(
    "detail",
    [
        {"resources": [{"address": "a.b", "action": "x; y"}]},
        {"resources": [{"address": "a" * 1_001, "action": "create"}]},
        {"resources": [{"address": "a.b", "action": "create", "later": "x" * MAX_PLAN_BYTES}]},
        {"resources": [{"address": "a.b", "action": "create", "attributes": [{"path": "p", "large": ["all"]}]}]},
    ],
)
def test_what_no_agent_sends_is_refused(detail):
    with pytest.raises(ValidationError):
        PlanDetail.model_validate(detail)


def test_what_a_later_agent_tells_is_kept():
    later = {"resources": [{"address": "a.b", "action": "recreate", "cost": 5}], "drifted": True}
    assert PlanDetail.model_validate(later).compact() == later
