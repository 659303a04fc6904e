"""What people decide about a run that waits: while its agent is silent, and when their message comes twice."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from tests.services.conftest import ControlPlane, HandAgent
from workers import tasks
from workers.cli import runs as cli
from workers.cli.follow import Progress
from workers.core.errors import AgentGone, AgentSilent, IllegalTransition, NotWaiting
from workers.core.lifecycle import RunStatus
from workers.protocol.errors import Unavailable
from workers.protocol.leases import SlotState
from workers.services.runs import decide, requests
from workers.services.runs import deliver as delivery
from workers.services.runs import views as run_views
from workers.services.runs.requests import decided
from workers.services.scaling.reconcile import reconcile_pods

Clock = Callable[[float], None]
Message = Callable[..., dict[str, Any]]


def beat(agent: HandAgent) -> bool:
    return agent.control.slots.heartbeat(agent.name, agent.instance_id, [], []).registered


def planned(control: ControlPlane) -> tuple[str, HandAgent]:
    """Bring a run to where it waits; return its id and its agent."""
    control.workspace()
    agent = control.agent()
    reconcile_pods(control.system, control.spec())
    run = control.submit()
    agent.work()
    return run.id, agent


def fall_silent(control: ControlPlane, clock_ahead: Clock) -> None:
    for seconds in (4, 8):
        clock_ahead(seconds)
        reconcile_pods(control.system, control.spec())


def plan_again(control: ControlPlane) -> None:
    """Have the plan that waits made anew, by another agent."""
    control.agent("default-2").work()


def die(*_: object) -> None:
    raise Unavailable("Redis went away.")


class TestWhileTheAgentIsSilent:
    """Silence is not death: its plan is kept, and so is its slot."""

    def test_a_confirmation_is_refused_and_costs_nobody_the_plan(
        self, control: ControlPlane, clock_ahead: Clock
    ) -> None:
        run, agent = planned(control)
        fall_silent(control, clock_ahead)
        with pytest.raises(AgentSilent, match=r"default-1 .* has not been heard for \d+ s.*`terraslot discard run-1`"):
            decide.confirm(control.system, run)
        lease = control.slots.find(run)
        assert lease is not None
        assert (control.run(run).status, control.run(run).attempt) == (RunStatus.APPLY_PENDING, 1)
        assert lease.state is SlotState.RESERVED

        assert beat(agent)
        decide.confirm(control.system, run)
        assert agent.work().phase == "apply"
        assert control.run(run).status is RunStatus.SUCCEEDED

    def test_a_plan_that_was_confirmed_just_before_is_applied_when_the_agent_is_heard_again(
        self, control: ControlPlane, clock_ahead: Clock
    ) -> None:
        run, agent = planned(control)
        decide.confirm(control.system, run)
        control.pods.keep_deleting = True
        redeem = control.spec().timeouts.redeem
        for seconds in (4, 8, redeem - 1, redeem + 1, 2 * redeem):
            clock_ahead(seconds)
            reconcile_pods(control.system, control.spec())
        assert control.run(run).status is RunStatus.APPLYING
        assert beat(agent)
        order, *_ = agent.orders()
        assert agent.start(order)
        agent.finish(order)
        assert control.run(run).status is RunStatus.SUCCEEDED

    def test_and_comes_back_its_order_is_sent_again_and_has_its_full_time_from_then_on(
        self, control: ControlPlane, clock_ahead: Clock
    ) -> None:
        """The heartbeat is there before Celery's consumer is, and what was in its queue may be lost."""
        run, agent = planned(control)
        decide.confirm(control.system, run)
        control.pods.keep_deleting = True
        redeem = control.spec().timeouts.redeem
        for seconds in (4, 8, redeem - 1, redeem + 1, 2 * redeem):
            clock_ahead(seconds)
            reconcile_pods(control.system, control.spec())
        agent.orders()
        assert control.run(run).deadline is None

        assert beat(agent)
        for seconds in (0, 5, redeem - 1):
            clock_ahead(2 * redeem + seconds)
            assert beat(agent)
            reconcile_pods(control.system, control.spec())
            assert control.run(run).status is RunStatus.APPLYING
        order, *_ = agent.orders()
        assert agent.start(order)
        assert control.run(run).deadline is not None
        agent.finish(order)
        assert control.run(run).status is RunStatus.SUCCEEDED

    def test_and_comes_back_and_still_does_not_take_its_order_the_plan_is_made_anew(
        self, control: ControlPlane, clock_ahead: Clock
    ) -> None:
        run, agent = planned(control)
        decide.confirm(control.system, run)
        redeem = control.spec().timeouts.redeem
        fall_silent(control, clock_ahead)
        for seconds in (10, redeem, redeem + 11):
            clock_ahead(seconds)
            assert beat(agent)
            reconcile_pods(control.system, control.spec())
        assert control.run(run).status is RunStatus.PENDING

    def test_and_gone_in_the_end_a_confirmed_plan_is_made_anew(self, control: ControlPlane, clock_ahead: Clock) -> None:
        run, agent = planned(control)
        decide.confirm(control.system, run)
        fall_silent(control, clock_ahead)
        del control.pods.pods[agent.name]
        reconcile_pods(control.system, control.spec())
        assert control.run(run).status is RunStatus.PENDING

    def test_the_plan_can_be_refused(self, control: ControlPlane, clock_ahead: Clock) -> None:
        run, _ = planned(control)
        fall_silent(control, clock_ahead)
        decide.discard(control.system, run)
        assert control.run(run).status is RunStatus.DISCARDED

    def test_and_redis_has_lost_the_map_the_plan_is_not_given_up_before_the_agent_is(
        self, control: ControlPlane
    ) -> None:
        """F8."""
        run, agent = planned(control)
        lease = control.slots.find(run)
        assert lease is not None
        control.redis.flushdb()
        with pytest.raises(AgentSilent, match="has not registered again"):
            decide.confirm(control.system, run)
        assert control.run(run).status is RunStatus.APPLY_PENDING
        control.slots.register(agent.name, agent.instance_id, [lease])
        decide.confirm(control.system, run)
        assert agent.work().phase == "apply"


@pytest.fixture
def message(control: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> Message:
    """Return what executes a control task as Celery would, under the id of its message."""
    monkeypatch.setattr(tasks, "system", lambda: control.system)

    def deliver(task: Any, task_id: str, run: str, **options: Any) -> dict[str, Any]:
        task.push_request(id=task_id)
        try:
            answer: dict[str, Any] = task.run(run, **options)
        finally:
            task.pop_request()
        return answer

    return deliver


class TestAMessageThatIsDeliveredAgain:
    def test_is_answered_like_the_first_time_and_another_is_not(self, control: ControlPlane, message: Message) -> None:
        run, agent = planned(control)
        first = message(tasks.confirm, "m-1", run)
        assert first["status"] == "applying"
        agent.work()
        assert message(tasks.confirm, "m-1", run)["status"] == "applying"
        with pytest.raises(NotWaiting, match="it is succeeded, not waiting"):
            message(tasks.confirm, "m-2", run)

    def test_does_not_confirm_the_next_plan(self, control: ControlPlane, message: Message) -> None:
        run, agent = planned(control)
        message(tasks.confirm, "m-1", run)
        agent.orders()
        del control.pods.pods[agent.name]
        reconcile_pods(control.system, control.spec())
        control.agent("default-2").work()
        assert message(tasks.confirm, "m-1", run)["status"] == "applying"
        assert (control.run(run).status, control.run(run).attempt) == (RunStatus.APPLY_PENDING, 2)

    def test_after_the_plan_was_gone_does_not_confirm_the_next_one(
        self, control: ControlPlane, message: Message, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run, agent = planned(control)
        control.slots.deregister(agent.name)
        del control.pods.pods[agent.name]
        with monkeypatch.context() as dying:  # the worker, between the commit and the answer
            dying.setattr("workers.services.runs.decide._enter_refusal", die)
            with pytest.raises((AgentGone, Unavailable)):
                message(tasks.confirm, "m-1", run)
        plan_again(control)
        with pytest.raises(AgentGone, match=r"refused when it came first: .* is gone\.$"):
            message(tasks.confirm, "m-1", run)
        assert (control.run(run).status, control.run(run).attempt) == (RunStatus.APPLY_PENDING, 2)
        assert message(tasks.confirm, "m-2", run)["status"] == "applying"

    def test_after_it_came_before_there_was_a_plan_confirms_none(self, control: ControlPlane, message: Message) -> None:
        control.workspace()
        agent = control.agent()
        run = control.submit().id
        with pytest.raises(NotWaiting, match="it is planning"):
            message(tasks.confirm, "m-1", run)
        agent.work()
        with pytest.raises(NotWaiting, match=r"refused when it came first: .* it is planning"):
            message(tasks.confirm, "m-1", run)
        assert control.run(run).status is RunStatus.APPLY_PENDING

    def test_after_the_agent_was_silent_does_not_confirm_the_next_plan(
        self, control: ControlPlane, clock_ahead: Clock, message: Message
    ) -> None:
        run, agent = planned(control)
        fall_silent(control, clock_ahead)
        with pytest.raises(AgentSilent):
            message(tasks.confirm, "m-1", run)
        control.slots.deregister(agent.name)
        del control.pods.pods[agent.name]
        reconcile_pods(control.system, control.spec())
        plan_again(control)
        with pytest.raises(AgentSilent, match="refused when it came first"):
            message(tasks.confirm, "m-1", run)
        assert control.run(run).status is RunStatus.APPLY_PENDING

    def test_after_the_first_worker_died_before_it_could_answer(
        self, control: ControlPlane, message: Message, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run, _ = planned(control)
        with monkeypatch.context() as dying:
            dying.setattr(delivery, "announcement", die)
            with pytest.raises(Unavailable):
                message(tasks.confirm, "m-1", run)
        assert message(tasks.confirm, "m-1", run)["status"] == "applying"

    def test_beside_the_first_is_answered_like_it(
        self, control: ControlPlane, message: Message, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run, _ = planned(control)
        is_open, answers = decide._open, []

        def meanwhile(*arguments: Any) -> Any:
            monkeypatch.setattr(decide, "_open", is_open)
            answers.append(message(tasks.confirm, "m-1", run))
            return is_open(*arguments)

        monkeypatch.setattr(decide, "_open", meanwhile)
        assert message(tasks.confirm, "m-1", run) == answers[0]

    def test_is_a_refusal_or_a_cancel_as_well(self, control: ControlPlane, message: Message) -> None:
        run, agent = planned(control)
        assert message(tasks.discard, "m-1", run) == message(tasks.discard, "m-1", run)
        with pytest.raises(NotWaiting):
            message(tasks.discard, "m-2", run)

        pending = control.submit().id
        order = agent.order()
        assert agent.start(order)
        assert message(tasks.cancel, "m-3", pending)["status"] == "planning"
        agent.finish(order, "cancelled")
        assert message(tasks.cancel, "m-3", pending)["status"] == "planning"
        with pytest.raises(IllegalTransition):
            message(tasks.cancel, "m-4", pending)

        not_redeemed = control.submit().id
        assert message(tasks.cancel, "m-6", not_redeemed) == message(tasks.cancel, "m-6", not_redeemed)
        control.slots.drain(agent.name)
        waits = control.submit().id
        assert message(tasks.cancel, "m-5", waits) == message(tasks.cancel, "m-5", waits)


class TestAConfirmationOfThePlanThatWasSeen:
    def test_applies_it(self, control: ControlPlane, message: Message) -> None:
        run, _ = planned(control)
        attempt = control.system.celery.AsyncResult(run).info["attempt"]
        assert message(tasks.confirm, "m-1", run, attempt=attempt)["status"] == "applying"

    def test_applies_no_other(self, control: ControlPlane, message: Message) -> None:
        run, agent = planned(control)
        del control.pods.pods[agent.name]
        reconcile_pods(control.system, control.spec())
        with pytest.raises(NotWaiting, match="it is pending"):
            message(tasks.confirm, "m-1", run, attempt=1)
        plan_again(control)
        words = r"that you saw is gone, of its attempt 1; it is apply_pending in its attempt 2: look at the new one\."
        with pytest.raises(AgentGone, match=words):
            message(tasks.confirm, "m-2", run, attempt=1)
        assert control.run(run).status is RunStatus.APPLY_PENDING
        assert message(tasks.confirm, "m-3", run, attempt=2)["status"] == "applying"

    def test_is_given_where_the_command_line_asked(
        self,
        control: ControlPlane,
        message: Message,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """The agent is lost while the prompt stands."""
        ids = map(str, itertools.count())
        monkeypatch.setattr(
            requests, "decide",
            lambda _system, _task, run, _actor, **how: decided(message(tasks.confirm, next(ids), run, **how)),
        )  # fmt: skip
        run, agent = planned(control)
        shown = run_views.one(control.system.database, run)
        del control.pods.pods[agent.name]
        reconcile_pods(control.system, control.spec())
        plan_again(control)
        with Progress() as progress:
            cli._decide(shown, "yes", progress)
            assert control.run(run).status is RunStatus.APPLY_PENDING
            cli._decide(run_views.one(control.system.database, run), "yes", progress)
        assert control.run(run).status is RunStatus.APPLYING
        assert "look at the new one" in " ".join(capsys.readouterr().out.split())
