"""What a run's page shows as open is what is done when it is asked for, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.services.conftest import ControlPlane, HandAgent
from workers.core.approval import Actor, Origin
from workers.core.timeline import StageName
from workers.core.verdicts import Verdict
from workers.protocol.errors import TerraslotError
from workers.protocol.kinds import RunKind
from workers.protocol.messages import Changes
from workers.services.pools import views as pool_views
from workers.services.pools.views import SlotView
from workers.services.runs import decide, details, views
from workers.services.runs.details import RunDetails

ADA, BOB = Actor("ada"), Actor("bob")
DECIDE: dict[Verdict, Callable[..., Any]] = {verdict: getattr(decide, verdict) for verdict in Verdict}


def seen(control: ControlPlane, run: str, actor: Actor | None = ADA, refusal: str | None = None) -> RunDetails:
    return details.of(control.system, views.one(control.system.database, run), actor, refusal)


def why_not(control: ControlPlane, run: str, actor: Actor | None = ADA) -> dict[Verdict, str | None]:
    shown = seen(control, run, actor).actions
    assert all(each.open is (each.why is None) for each in shown)
    return {each.action: each.why for each in shown}


def waiting(control: ControlPlane, **approval: Any) -> str:
    """Bring a run that ada has asked for to where its plan waits."""
    control.workspace(approval=approval)
    agent = control.agent()
    run = control.submit(actor=ADA)
    agent.work(changes=Changes(add=1, destroy=2))
    return run.id


@pytest.mark.parametrize("step", ["queued", "planning", "waiting", "over"])
@pytest.mark.parametrize("verdict", Verdict)
def test_what_is_shown_as_open_is_accepted_and_the_rest_refused_in_the_same_words(
    control: ControlPlane, step: str, verdict: Verdict
) -> None:
    control.workspace()
    agent = control.agent() if step != "queued" else None
    run = control.submit().id
    if agent is not None and step != "planning":
        agent.work()
    if step == "over":
        decide.discard(control.system, run)
    why = why_not(control, run)[verdict]
    if why is None:
        DECIDE[verdict](control.system, run)
    else:
        with pytest.raises(TerraslotError) as refused:
            DECIDE[verdict](control.system, run)
        assert str(refused.value) == why


def test_who_may_not_confirm_reads_what_the_confirmation_would_be_answered_with(control: ControlPlane) -> None:
    run = waiting(control, four_eyes=True)
    why = why_not(control, run)
    assert why[Verdict.CONFIRM] is not None
    assert (why[Verdict.DISCARD], why_not(control, run, BOB)[Verdict.CONFIRM]) == (None, None)
    with pytest.raises(TerraslotError) as refused:
        decide.confirm(control.system, run, origin=Origin(actor=ADA))
    assert str(refused.value) == why[Verdict.CONFIRM]
    decide.confirm(control.system, run, origin=Origin(actor=BOB))


def test_one_who_may_decide_about_nothing_is_told_why_and_of_what_is_over_that_it_is(control: ControlPlane) -> None:
    run = waiting(control)
    assert {each.why for each in seen(control, run, None, "it is read-only").actions} == {"it is read-only"}
    decide.discard(control.system, run)
    whys = {each.why for each in seen(control, run, None, "it is read-only").actions}
    assert "it is read-only" not in whys
    assert None not in whys


def test_a_plan_whose_agent_is_silent_is_not_shown_as_open(control: ControlPlane, clock_ahead: Any) -> None:
    run = waiting(control)
    for seconds in range(0, 31, 10):  # without a gap, from before it was heard last
        clock_ahead(seconds)
        control.slots.mark_silent(5)
    why = why_not(control, run)[Verdict.CONFIRM]
    assert why is not None
    assert "the agent default-1 is silent" in why


def test_a_run_is_shown_with_its_stages_its_failure_and_what_was_before_it(
    control: ControlPlane, clock_ahead: Any
) -> None:
    first = waiting(control)
    second = control.submit(actor=BOB).id
    clock_ahead(60)
    assert first in (seen(control, second).timeline[0].waited_for or "")
    control.slots.heartbeat("default-1", control.slots.snapshot()[0].instance_id, [], [])
    decide.confirm(control.system, first)
    shown = seen(control, first)
    assert (shown.destroys, shown.previous, shown.failure) == (2, [], None)
    assert [stage.stage for stage in shown.timeline] == ["queued", "plan", "confirmation", "apply"]
    assert shown.phases[StageName.CONFIRMATION] == pytest.approx(60, abs=10)

    (agent,) = control.slots.snapshot()
    HandAgent(control, agent.name, agent.instance_id).work(
        outcome="failed", reason="terraform_failed", error="╷\n│ Error: no such bucket\n│ \n│ on main.tf\n╵"
    )
    failure = seen(control, first).failure
    assert failure is not None
    assert failure.headline == "Error: no such bucket"
    after = seen(control, second)
    assert [run.run_id for run in after.previous] == [first]
    assert after.previous[0].destroys == 2
    assert after.timeline[0].waited_for == f"run {first} of its workspace"
    assert control.submit(RunKind.PLAN).id


def test_a_slot_shows_its_runs_status_and_what_the_plan_that_it_is_kept_for_would_change(control: ControlPlane) -> None:
    def slot() -> SlotView:
        return pool_views.one(control.system, "default").agents[0].slots[0]

    control.workspace()
    agent = control.agent()
    run = control.submit().id
    assert (slot().status, slot().changes, slot().destroys) == ("planning", None, None)
    agent.work(changes=Changes(add=1, destroy=2))
    kept = slot()
    assert (kept.status, kept.workspace, kept.destroys) == ("apply_pending", "net", 2)
    assert kept.changes == {"add": 1, "change": 0, "destroy": 2}
    assert kept.until is not None
    decide.confirm(control.system, run)
    assert (slot().status, slot().destroys, slot().until) == ("applying", 2, None)
    agent.work()
    assert (slot().status, slot().changes) == (None, None)
