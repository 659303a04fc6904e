"""How long a plan waits for a person, and a phase for its end: extended, reminded of, set by a workspace."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.services.conftest import ControlPlane, HandAgent
from workers.core.approval import Actor, Origin
from workers.core.errors import NotWaiting
from workers.core.lifecycle import RunNote, RunStatus
from workers.protocol.errors import InvalidRequest
from workers.protocol.kinds import Phase
from workers.services.runs import decide
from workers.services.runs import views as run_views
from workers.services.scaling import reconcile
from workers.services.scaling.reconcile import reconcile_pods

Clock = Callable[[float], None]
HOUR = 3600.0


def planned(control: ControlPlane, **facts: Any) -> tuple[str, HandAgent]:
    """Bring a run to where it waits, for two hours; return its id and its agent."""
    control.workspace(**{"confirm_timeout": 2 * HOUR} | facts)
    agent = control.agent()
    reconcile_pods(control.system, control.spec())
    run = control.submit()
    agent.work()
    return run.id, agent


def at(control: ControlPlane, clock_ahead: Clock, seconds: float) -> None:
    """Let so much time have passed, while the agent was heard, and reconcile the pool."""
    clock_ahead(seconds)
    agent = HandAgent(control, "default-1")
    control.slots.heartbeat(agent.name, agent.instance_id, [], [])
    reconcile_pods(control.system, control.spec())


def entered(control: ControlPlane, run: str, note: RunNote) -> list[Any]:
    seen = run_views.one(control.system.database, run)
    return [each.detail for each in run_views.events(control.system.database, seen) if each.event == note]


class TestAnExtension:
    def test_keeps_a_plan_that_would_have_expired(self, control: ControlPlane, clock_ahead: Clock) -> None:
        run, agent = planned(control)
        before = control.run(run)
        origin = Origin("m-1", Actor("anna"), "bob is at lunch")
        answer = decide.deduplicate(control.system, run, origin, decide.extend, seconds=4 * HOUR)
        assert answer["status"] == "apply_pending"
        assert decide.deduplicate(control.system, run, origin, decide.extend, seconds=4 * HOUR) == answer
        until = control.run(run).confirm_until
        assert before.confirm_until is not None
        assert until == before.confirm_until + timedelta(hours=4), "a message that is delivered twice extends once"
        assert control.run(run).updated_at == before.updated_at
        lease = control.slots.find(run)
        assert lease is not None
        assert lease.until == pytest.approx(until.timestamp())
        (said,) = entered(control, run, RunNote.CONFIRMATION_EXTENDED)
        assert (said["actor"], said["message"], said["until"]) == ("anna", "bob is at lunch", until.isoformat())

        at(control, clock_ahead, 3 * HOUR)
        assert control.run(run).status is RunStatus.APPLY_PENDING
        decide.confirm(control.system, run)
        assert agent.work().phase == "apply"

    def test_ends_as_well(self, control: ControlPlane, clock_ahead: Clock) -> None:
        run, _ = planned(control)
        decide.extend(control.system, run, seconds=HOUR)
        at(control, clock_ahead, 3 * HOUR + 1)
        assert control.run(run).status is RunStatus.EXPIRED
        with pytest.raises(NotWaiting, match="can't be extended: it is expired"):
            decide.extend(control.system, run)

    def test_at_the_last_moment_is_not_followed_by_the_end(
        self, control: ControlPlane, clock_ahead: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Reconcile has read that the time is over when the extension is stored."""
        run, _ = planned(control)
        end = reconcile.end

        def late(*arguments: Any, **changes: Any) -> Any:
            decide.extend(control.system, run, seconds=HOUR)
            return end(*arguments, **changes)

        monkeypatch.setattr(reconcile, "end", late)
        at(control, clock_ahead, 2 * HOUR + 1)
        assert control.run(run).status is RunStatus.APPLY_PENDING

    @pytest.mark.parametrize("seconds", [0, -1, 31 * 86400, float("nan"), float("inf"), True, "4h", None])
    def test_by_what_is_no_time_is_refused(self, control: ControlPlane, seconds: Any) -> None:
        run, _ = planned(control)
        with pytest.raises(InvalidRequest, match="can't be extended by"):
            decide.extend(control.system, run, seconds=seconds)

    def test_beyond_what_callers_can_wait_for_is_refused(self, control: ControlPlane) -> None:
        run, _ = planned(control)
        with pytest.raises(InvalidRequest, match="waits 30 days at most"):
            decide.extend(control.system, run, seconds=30 * 86400)


class TestTheReminder:
    def test_comes_once_an_hour_before_the_end(self, control: ControlPlane, clock_ahead: Clock) -> None:
        run, _ = planned(control, confirm_timeout=8 * HOUR)
        until, since = control.run(run).confirm_until, control.run(run).updated_at
        assert until is not None
        at(control, clock_ahead, 7 * HOUR - 60)
        assert entered(control, run, RunNote.CONFIRMATION_DUE) == []
        for seconds in (60, 120):
            at(control, clock_ahead, 7 * HOUR + seconds)
            assert entered(control, run, RunNote.CONFIRMATION_DUE) == [{"until": until.isoformat()}]
        assert control.run(run).updated_at == since

    def test_comes_in_the_last_quarter_of_a_short_wait(self, control: ControlPlane, clock_ahead: Clock) -> None:
        run, _ = planned(control, confirm_timeout=400)
        at(control, clock_ahead, 290)
        assert entered(control, run, RunNote.CONFIRMATION_DUE) == []
        at(control, clock_ahead, 310)
        assert len(entered(control, run, RunNote.CONFIRMATION_DUE)) == 1

    def test_comes_again_after_an_extension(self, control: ControlPlane, clock_ahead: Clock) -> None:
        run, _ = planned(control, confirm_timeout=400)
        at(control, clock_ahead, 310)
        decide.extend(control.system, run, seconds=400)
        at(control, clock_ahead, 690)
        assert len(entered(control, run, RunNote.CONFIRMATION_DUE)) == 1
        at(control, clock_ahead, 710)
        assert len(entered(control, run, RunNote.CONFIRMATION_DUE)) == 2


class TestTheTimesOfAWorkspace:
    def test_go_before_those_of_its_pool(self, control: ControlPlane) -> None:
        control.workspace(timeouts={"plan": 100, "apply": 50_000})
        agent, run = control.agent(), control.submit()
        redeem = control.spec().timeouts.redeem
        plan, seen = agent.order(), control.run(run.id)
        assert plan.timeout == 100
        assert seen.deadline == seen.updated_at + timedelta(seconds=100 + redeem)
        agent.start(plan)
        agent.finish(plan)
        decide.confirm(control.system, run.id)
        seen, order = control.run(run.id), agent.order()
        assert (order.phase, order.timeout) == (Phase.APPLY, 50_000)
        assert seen.deadline is not None
        assert seen.deadline - seen.updated_at == pytest.approx(
            timedelta(seconds=50_000 + redeem), abs=timedelta(seconds=1)
        )

    def test_leave_those_of_the_pool_where_they_say_nothing(self, control: ControlPlane) -> None:
        control.workspace(timeouts={"apply": 50_000})
        agent, _ = control.agent(), control.submit()
        assert agent.order().timeout == control.spec().timeouts.plan

    def test_count_from_when_a_silent_agent_is_heard_again(self, control: ControlPlane, clock_ahead: Clock) -> None:
        run, agent = planned(control, timeouts={"apply": 50_000})
        decide.confirm(control.system, run)
        control.pods.keep_deleting = True
        for seconds in (4.0, 8.0, 12.0):
            clock_ahead(seconds)
            reconcile_pods(control.system, control.spec())
        assert control.run(run).deadline is None
        at(control, clock_ahead, 13)
        at(control, clock_ahead, 14)
        deadline = control.run(run).deadline
        assert deadline is not None
        assert (deadline - control.system.now()).total_seconds() == pytest.approx(50_030, abs=5)
        assert agent.orders()
