"""A workspace's page says what runs and waits there, what holds it, and what its last plan has found since."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event

from tests.services.conftest import ControlPlane, HandAgent
from workers.core.approval import Actor
from workers.core.errors import UnknownWorkspace
from workers.protocol.kinds import RunKind
from workers.protocol.messages import Changes
from workers.protocol.plan_detail import PlanDetail, ResourceChange
from workers.protocol.states import RescuedState
from workers.services import workspaces
from workers.services.runs import decide, of_workspaces
from workers.services.runs.of_workspaces import WorkspaceOverview

DRIFTED = PlanDetail(resources=[ResourceChange(address="a.b", action="update", drift=True)])


def overview(control: ControlPlane) -> WorkspaceOverview:
    return of_workspaces.one(control.system, "net")


def planned(control: ControlPlane, agent: HandAgent, **facts: Any) -> str:
    run = control.submit(RunKind.PLAN, **facts.pop("asked", {})).id
    agent.work(**facts)
    return run


def applied(control: ControlPlane, agent: HandAgent) -> str:
    run = control.submit(actor=Actor("ada")).id
    agent.work()
    decide.confirm(control.system, run)
    agent.work()
    return run


def test_a_list_of_workspaces_says_of_each_what_runs_waits_and_ran_last(control: ControlPlane) -> None:
    for name in ("dns", "net", "web"):
        control.workspace(name)
    agent = control.agent()
    last = control.submit(RunKind.PLAN, "net").id
    agent.work()
    running = control.submit(workspace="web").id
    waits = control.submit(workspace="web").id
    workspaces.lock(control.system, "dns", "ada", "moving")
    dns, net, web = of_workspaces.every(control.system).workspaces
    assert dns.lock is not None
    assert (dns.lock.by, dns.unfinished, dns.last_run) == ("ada", {}, None)
    assert net.last_run is not None
    assert (net.last_run.run_id, net.last_run.status, net.unfinished) == (last, "succeeded", {})
    assert web.last_run is not None
    assert (web.last_run.run_id, web.unfinished) == (waits, {"planning": 1, "pending": 1})
    assert {run.run_id for run in of_workspaces.one(control.system, "web").unfinished} == {running, waits}


def test_a_list_of_workspaces_can_be_searched_and_paged_through_in_two_statements(control: ControlPlane) -> None:
    for name in ("dns", "net", "net-b", "web"):
        control.workspace(name)
    sent: list[str] = []
    with control.system.database.read() as session:
        event.listen(session.connection().engine, "before_cursor_execute", lambda *args: sent.append(args[2]))
    page = of_workspaces.every(control.system, limit=3)
    assert len([statement for statement in sent if statement.startswith("SELECT")]) == 2
    assert ([each.name for each in page.workspaces], page.after) == (["dns", "net", "net-b"], "net-b")
    rest = of_workspaces.every(control.system, after=page.after, limit=3)
    assert ([each.name for each in rest.workspaces], rest.after) == (["web"], None)
    assert [each.name for each in of_workspaces.every(control.system, text="NET").workspaces] == ["net", "net-b"]
    assert of_workspaces.every(control.system, pool="elsewhere").workspaces == []


def test_the_last_apply_is_told_and_what_plans_have_found_since(control: ControlPlane) -> None:
    control.workspace()
    agent = control.agent()
    planned(control, agent)
    first = applied(control, agent)
    seen = overview(control)
    assert seen.last_applied is not None
    assert (seen.last_applied.run_id, seen.last_applied.actor, seen.drift) == (first, "ada", None)

    same = planned(control, agent, changed=False)
    drift = overview(control).drift
    assert drift is not None
    assert (drift.run_id, drift.differs, drift.drifted, drift.refresh_only) == (same, False, None, False)

    refreshed = planned(control, agent, asked={"refresh_only": True}, changed=True, changes=Changes(), plan=DRIFTED)
    planned(control, agent, asked={"targets": ["aws_instance.a"]}, changed=False)
    drift = overview(control).drift
    assert drift is not None
    assert (drift.run_id, drift.differs, drift.drifted, drift.refresh_only) == (refreshed, True, 1, True)

    unapplied = control.submit().id
    agent.work(changed=False)
    seen = overview(control)
    assert seen.last_applied is not None
    assert seen.last_applied.run_id == first, "a run that found nothing to do has applied nothing"
    assert seen.recent[0].run_id == unapplied
    assert seen.outcomes == {"succeeded": 6}


def test_what_holds_a_workspace_is_told(control: ControlPlane) -> None:
    control.workspace()
    agent = control.agent()
    lost = control.submit().id
    agent.work()
    decide.confirm(control.system, lost)
    agent.work(outcome="failed", reason="terraform_failed", error="no", rescued=RescuedState(bytes=9, sent=False))
    held = control.submit().id
    seen = overview(control)
    assert lost in (seen.unsaved_state or "")
    assert [run.run_id for run in seen.unfinished] == [held]
    assert lost in (seen.unfinished[0].waiting or "")
    (listed,) = of_workspaces.every(control.system).workspaces
    assert (listed.unsaved, listed.unfinished) == (lost, {"pending": 1})
    with pytest.raises(UnknownWorkspace):
        of_workspaces.one(control.system, "nowhere")
