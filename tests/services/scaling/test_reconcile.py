"""Reconcile finishes what a lost agent, order or report, or a dead process of the control plane, left half-done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from celery.exceptions import Ignore

from beat_schedule import BEAT_SCHEDULE
from tests.services.conftest import POOL, ControlPlane, HandAgent
from workers import tasks
from workers.core.actions import Repair, RepairRun, RequeueOrFail
from workers.core.errors import NotWaiting, RunFailed, UnknownRun
from workers.core.lifecycle import RunNote, RunStatus
from workers.core.pods import PodPhase
from workers.core.views import HeldRun
from workers.protocol.errors import Unavailable
from workers.protocol.kinds import FailureReason, RunKind
from workers.protocol.leases import CancelMode, CancelOutcome, SlotState
from workers.protocol.messages import AgentStopped, PhaseFinished
from workers.services import workspaces
from workers.services.pool_state import PodSnapshot
from workers.services.runs import decide, dispatch, finish, orders, report, submit
from workers.services.runs import deliver as delivery
from workers.services.scaling.reconcile import Context, perform, reconcile_pods
from workers.slots.slot_map import SlotMap

PLAN = RunKind.PLAN
Clock = Callable[[float], None]


def reconcile(control: ControlPlane) -> None:
    reconcile_pods(control.system, control.spec())


def listing(control: ControlPlane) -> PodSnapshot:
    return PodSnapshot(control.system, control.spec())


def started(control: ControlPlane, agent: HandAgent, *, phase: str = "plan") -> str:
    """Bring a run to a phase that has redeemed its token; return its id."""
    run = control.submit()
    if phase == "apply":
        agent.work()
        decide.confirm(control.system, run.id)
    assert agent.start(agent.order())
    return run.id


def lose_pod(control: ControlPlane, name: str = "default-1") -> None:
    del control.pods.pods[name]
    reconcile(control)


class TestAnAgentThatIsGone:
    def test_has_its_plan_made_anew_elsewhere(self, control: ControlPlane) -> None:
        """F7."""
        control.workspace()
        run_id = started(control, control.agent())
        lose_pod(control)
        assert control.run(run_id).status is RunStatus.PENDING
        other = control.agent("default-2")
        other.work()
        run = control.run(run_id)
        assert (run.status, run.agent, run.attempt) == (RunStatus.APPLY_PENDING, "default-2", 2)

    def test_has_a_plan_that_waits_for_confirmation_made_anew(self, control: ControlPlane) -> None:
        control.workspace()
        agent = control.agent()
        run = control.submit()
        agent.work()
        lose_pod(control)
        assert control.run(run.id).status is RunStatus.PENDING

    def test_never_has_an_apply_repeated_that_may_have_started(self, control: ControlPlane) -> None:
        """F9."""
        control.workspace()
        run_id = started(control, control.agent(), phase="apply")
        lose_pod(control)
        with pytest.raises(RunFailed, match=r"agent_lost.*its pod is gone"):
            delivery.outcome(control.run(run_id))
        assert control.deliveries() == [run_id]

    def test_has_its_apply_reported_by_what_it_had_kept_on_disk(self, control: ControlPlane) -> None:
        """F41: what is no report of its own run changes nothing."""
        control.workspace()
        agent = control.agent()
        run_id = started(control, agent, phase="apply")
        token = control.run(run_id).token or ""
        facts = {"agent": agent.name, "run": run_id, "phase": "apply", "outcome": "succeeded"}
        for about in (
            {"pool": "other", "token": token},
            {"pool": POOL, "token": "x" * 32},
            {"pool": POOL, "token": token},
        ):
            control.pods.left.append(PhaseFinished.model_validate({**facts, **about}).model_dump_json().encode())
        control.pods.left[:0] = [b"{}", b'{"pool": "default", "run": "\\ud800", "token": "x"}']
        control.pods.pods[agent.name] = replace(control.pods.pods[agent.name], phase=PodPhase.FAILED)
        waiting = control.submit(PLAN)
        reconcile(control)
        assert control.run(run_id).status is RunStatus.SUCCEEDED
        assert control.pods.left == []
        assert control.slots.agent(agent.name) is None
        assert control.run(waiting.id).status is RunStatus.PENDING

    def test_has_an_apply_planned_anew_that_was_never_redeemed(self, control: ControlPlane) -> None:
        control.workspace()
        agent = control.agent()
        run = control.submit()
        agent.work()
        decide.confirm(control.system, run.id)
        lose_pod(control)
        assert control.run(run.id).status is RunStatus.PENDING

    def test_has_a_run_cancelled_whose_cancel_was_requested(self, control: ControlPlane) -> None:
        control.workspace()
        run_id = started(control, control.agent(), phase="apply")
        decide.cancel(control.system, run_id)
        lose_pod(control)
        assert control.run(run_id).status is RunStatus.CANCELLED

    def test_has_a_run_failed_that_used_up_its_attempts(self, control: ControlPlane) -> None:
        control.workspace()
        run = control.submit()
        for attempt in range(3):
            agent = control.agent(f"default-{attempt}")
            assert agent.start(agent.order())
            lose_pod(control, agent.name)
        assert control.run(run.id).reason is FailureReason.AGENT_LOST

    def test_keeps_its_run_and_workspace_while_its_pod_is_listed(
        self, control: ControlPlane, clock_ahead: Clock
    ) -> None:
        """F12: a silent agent's terraform may still write."""
        control.workspace()
        run_id = started(control, control.agent())
        control.pods.keep_deleting = True
        reconcile(control)
        for seconds in (4, 8, 12, 16, 20, 24, 28):
            clock_ahead(seconds)
            reconcile(control)
        assert control.pods.deleted[0] == "default-1"
        assert control.run(run_id).status is RunStatus.PLANNING
        lose_pod(control)
        assert control.run(run_id).status is RunStatus.PENDING

    def test_has_each_of_its_runs_decided_about_though_one_is_not_in_the_database(self, control: ControlPlane) -> None:
        """F9: once the agent is deregistered, nothing tells that an apply never started."""
        control.workspace()
        agent = control.agent()
        run = control.submit()
        agent.work()
        decide.confirm(control.system, run.id)
        control.slots.acquire("unknown-run", PLAN, orders.new_token())
        deregister = type(control.slots).deregister
        with pytest.MonkeyPatch.context() as order:
            order.setattr(
                type(control.slots),
                "deregister",
                lambda *a, **how: sorted(deregister(*a, **how), key=lambda one: -one.slot),
            )
            lose_pod(control)
        assert control.run(run.id).status is RunStatus.PENDING

    def test_has_its_runs_decided_about_by_their_leases_though_the_first_process_died(
        self, control: ControlPlane, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """F9: an apply that was never redeemed is not taken for one that may have started."""
        control.workspace()
        agent = control.agent()
        run = control.submit()
        agent.work()
        decide.confirm(control.system, run.id)
        with monkeypatch.context() as dying:
            dying.setattr(report, "requeue_or_fail", _die)
            with pytest.raises(Death):
                lose_pod(control)
        reconcile(control)
        assert control.run(run.id).status is RunStatus.PENDING
        assert control.slots.agent(agent.name) is None

    def test_that_reports_its_stop_loses_its_runs_at_once(self, control: ControlPlane) -> None:
        control.workspace()
        agent = control.agent()
        run_id = started(control, agent)
        other = control.agent("default-2")
        stopped = AgentStopped(pool="default", agent=agent.name, instance_id=agent.instance_id)
        report.take(control.system, stopped)
        assert control.run(run_id).agent == other.name

    def test_is_not_taken_for_stopped_by_the_report_of_another_instance(self, control: ControlPlane) -> None:
        control.workspace()
        agent = control.agent()
        run_id = started(control, agent)
        report.take(control.system, AgentStopped(pool="default", agent=agent.name, instance_id="forged"))
        assert control.run(run_id).status is RunStatus.PLANNING


class TestAView:
    def test_that_can_not_be_read_ends_reconcile_without_a_change(self, control: ControlPlane) -> None:
        """F24."""
        control.workspace()
        run_id = started(control, control.agent())
        control.pods.broken = True
        with pytest.raises(Unavailable):
            reconcile(control)
        control.pods.broken = False
        assert control.run(run_id).status is RunStatus.PLANNING
        assert control.slots.agent("default-1") is not None

    def test_of_an_emptied_redis_ends_no_run(self, control: ControlPlane) -> None:
        """F8: the agent registers again with what it executes, and the map is whole."""
        control.workspace()
        agent = control.agent()
        run = control.submit()
        order = agent.order()
        agent.start(order)
        lease = control.slots.find(run.id)
        assert lease is not None
        control.redis.flushall()
        reconcile(control)
        assert control.run(run.id).status is RunStatus.PLANNING
        control.slots.register(agent.name, agent.instance_id, [lease])
        reconcile(control)
        agent.finish(order)
        assert control.run(run.id).status is RunStatus.APPLY_PENDING
        found = control.slots.find(run.id)
        assert found is not None
        assert found.state is SlotState.RESERVED


class TestAReport:
    def test_that_comes_twice_changes_nothing_the_second_time(self, control: ControlPlane) -> None:
        """F26."""
        control.workspace()
        agent = control.agent()
        run = control.submit(PLAN)
        order = agent.work()
        agent.finish(order, "failed", reason=FailureReason.TERRAFORM_FAILED, error="late")
        assert control.run(run.id).status is RunStatus.SUCCEEDED
        assert control.deliveries() == [run.id]

    def test_of_an_earlier_attempt_changes_nothing(self, control: ControlPlane) -> None:
        """F11."""
        control.workspace()
        agent = control.agent()
        run = control.submit()
        old = agent.order()
        agent.start(old)
        lose_pod(control)
        control.agent("default-2")
        agent.finish(old, "failed", reason=FailureReason.TERRAFORM_FAILED, error="late")
        assert control.run(run.id).status is RunStatus.PLANNING

    def test_is_finished_by_its_repetition_where_the_first_process_died_after_the_commit(
        self, control: ControlPlane, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """F10, F26: commit first, then the slot map; a crash between loses neither plan nor slot."""
        control.workspace()
        agent = control.agent()
        run = control.submit()
        order = agent.order()
        agent.start(order)
        with monkeypatch.context() as dying:
            dying.setattr(type(control.slots), "reserve", _die)
            with pytest.raises(Death):
                agent.finish(order)
        assert control.run(run.id).status is RunStatus.APPLY_PENDING
        reply = control.slots.heartbeat(agent.name, agent.instance_id, [], [order.token])
        assert reply.repeat == (order.token,)
        agent.finish(order)
        lease = control.slots.find(run.id)
        assert lease is not None
        assert lease.state is SlotState.RESERVED
        decide.confirm(control.system, run.id)
        agent.work()
        assert control.quiet()

    def test_of_the_end_frees_its_slot_though_the_first_process_died_after_the_commit(
        self, control: ControlPlane, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        control.workspace()
        agent = control.agent()
        run = control.submit(PLAN)
        order = agent.order()
        agent.start(order)
        with monkeypatch.context() as dying:
            dying.setattr(type(control.slots), "release_step", _die)
            with pytest.raises(Death):
                agent.finish(order)
        agent.finish(order)
        assert control.quiet()
        assert control.run(run.id).delivered_at is None  # it is delivered later: see the next test

    def test_of_a_timeout_that_the_platform_enforced_fails_the_run(self, control: ControlPlane) -> None:
        control.workspace()
        agent = control.agent()
        run = control.submit(PLAN)
        order = agent.order()
        agent.start(order)
        agent.finish(order, "cancelled")
        assert control.run(run.id).reason is FailureReason.TIMED_OUT


class Death(BaseException):
    """The process dies here: no handler of ordinary errors runs."""


def _die(*_: object, **__: object) -> None:
    raise Death


def test_an_outcome_that_was_not_sent_is_sent_a_minute_later(control: ControlPlane, clock_ahead: Clock) -> None:
    control.workspace()
    agent = control.agent()
    run = control.submit(PLAN)
    agent.work()
    assert control.deliveries() == [run.id]
    assert delivery.deliver_overdue(control.system) == 0
    clock_ahead(61)
    assert delivery.deliver_overdue(control.system) == 0, "its message may have been sent after that of this job"
    clock_ahead(61 + control.system.settings.cycle_seconds)
    assert delivery.deliver_overdue(control.system) == 1
    assert control.deliveries() == [run.id]
    delivery.delivered(control.system, [run.id])
    assert delivery.deliver_overdue(control.system) == 0


def test_overdue_outcomes_are_looked_for_when_those_that_were_sent_before_have_been_taken(
    control: ControlPlane,
) -> None:
    """A backlog of outcomes is not fed with further messages for the same runs."""
    job = BEAT_SCHEDULE["deliver-outcomes"]
    control.workspace()
    agent = control.agent()
    before = control.submit(PLAN)
    agent.work()
    control.system.celery.send_task(job["task"], task_id="the-job", **job["options"])
    after = control.submit(PLAN)
    agent.work()
    assert control.deliveries() == [before.id, "the-job", after.id]
    assert job["options"]["expires"] <= control.system.settings.cycle_seconds


Deliver = Callable[[str], dict[str, Any]]


class TestAnOutcome:
    """That is sent to Celery once more, as the task that the run was enqueued by."""

    @pytest.fixture
    def deliver(self, control: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> Deliver:
        monkeypatch.setattr(tasks, "system", lambda: control.system)

        def deliver(run_id: str) -> dict[str, Any]:
            tasks.plan.push_request(id=run_id, **{delivery.OUTCOME: True})
            try:
                result: dict[str, Any] = tasks.plan.run(workspace="net")
            finally:
                tasks.plan.pop_request()
            return result

        return deliver

    @pytest.fixture
    def over(self, control: ControlPlane) -> str:
        control.workspace()
        run = control.submit(PLAN)
        control.agent().work()
        return run.id

    def test_is_delivered_though_the_workspace_was_deleted_meanwhile(
        self, control: ControlPlane, deliver: Deliver, over: str
    ) -> None:
        workspaces.delete(control.system, "net")
        assert deliver(over)["status"] == "succeeded"

    def test_that_celery_has_stored_is_not_delivered_again(self, deliver: Deliver, over: str) -> None:
        """What follows the run in a chain would be done twice."""
        deliver(over)
        tasks.plan.on_success(None, over, (), {})
        with pytest.raises(Ignore):
            deliver(over)

    def test_that_is_being_delivered_is_delivered_by_nobody_else(
        self, control: ControlPlane, clock_ahead: Clock, deliver: Deliver, over: str
    ) -> None:
        """Celery sends the rest of a chain before the result is stored."""
        deliver(over)
        with pytest.raises(Ignore):
            deliver(over)
        clock_ahead(61)
        assert deliver(over)["run_id"] == over, "its worker may have died"
        control.deliveries()
        clock_ahead(110)
        assert delivery.deliver_overdue(control.system) == 0
        clock_ahead(122)
        assert delivery.deliver_overdue(control.system) == 1

    def test_is_left_for_later_where_the_database_is_away(
        self, control: ControlPlane, deliver: Deliver, over: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away(*_: object) -> None:
            raise Unavailable("The database does not answer.")

        with monkeypatch.context() as outage:
            outage.setattr("workers.store.runs.claim_delivery", away)
            with pytest.raises(Ignore):
                deliver(over)
        assert control.run(over).delivered_at is None

    @pytest.mark.usefixtures("deliver")
    def test_is_not_delivered_by_another_error(self, control: ControlPlane, over: str) -> None:
        tasks.plan.on_failure(Unavailable("The database does not answer."), over, (), {}, None)
        assert control.run(over).delivered_at is None


def test_an_order_that_is_lost_is_sent_again_and_starts_once(control: ControlPlane, clock_ahead: Clock) -> None:
    """F9: the token decides, not delivery."""
    control.workspace()
    agent = control.agent()
    reconcile(control)
    control.submit()
    first = agent.order()
    clock_ahead(11)
    agent_beats(control, agent)
    reconcile(control)
    again = agent.order()
    assert again == first
    assert agent.start(first)
    assert not agent.start(again)


@pytest.mark.parametrize(("asked", "status"), [(False, RunStatus.PENDING), (True, RunStatus.CANCELLED)])
def test_an_order_that_was_revoked_by_a_process_that_died_was_never_started(
    control: ControlPlane, asked: bool, status: RunStatus
) -> None:
    """F39: it is not taken for one whose agent was lost while it applied."""
    control.workspace()
    agent = control.agent()
    run = control.submit()
    agent.work()
    run = decide.confirm(control.system, run.id)
    if asked:
        finish.note(control.system, run, RunNote.CANCEL_REQUESTED, cancel_mode=CancelMode.INTERRUPT)
        assert control.slots.cancel(run.id, CancelMode.INTERRUPT) is CancelOutcome.REVOKED
    else:
        assert control.slots.revoke(run.id, run.token or "")
    assert not agent.start(agent.order())
    reconcile(control)
    assert control.run(run.id).status is status
    assert control.quiet()


def test_an_order_that_is_not_redeemed_is_revoked(control: ControlPlane, clock_ahead: Clock) -> None:
    control.workspace()
    agent = control.agent()
    reconcile(control)
    run = control.submit()
    stale = agent.order()
    clock_ahead(31)
    agent_beats(control, agent)
    reconcile(control)
    assert control.run(run.id).status is RunStatus.PENDING
    assert not agent.start(stale)
    dispatch.dispatch(control.system, "default")
    assert agent.orders()[-1].token != stale.token


def test_a_run_is_dispatched_later_where_the_dispatcher_died_between_slot_and_commit(
    control: ControlPlane, clock_ahead: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    control.workspace()
    control.submit()
    agent = HandAgent(control, "default-1")
    with monkeypatch.context() as dying:
        dying.setattr("workers.store.runs.record", _die)
        with pytest.raises(Death):
            control.agent()
    assert control.slots.find("run-1") is not None
    assert not agent.orders()
    clock_ahead(11)
    agent_beats(control, agent)
    reconcile(control)
    dispatch.dispatch(control.system, "default")
    agent.work()
    assert control.run("run-1").status is RunStatus.APPLY_PENDING


def test_a_run_is_entered_later_where_its_submission_died_between_slot_and_commit(
    control: ControlPlane, clock_ahead: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery delivers its message once more."""
    control.workspace()
    agent = control.agent()
    with monkeypatch.context() as dying:
        dying.setattr("workers.store.runs.add", _die)
        with pytest.raises(Death):
            control.submit()
    with pytest.raises(UnknownRun):
        control.run("run-1")
    assert control.slots.find("run-1") is not None
    clock_ahead(11)
    agent_beats(control, agent)
    reconcile(control)
    assert control.quiet()
    control.count = 0
    control.submit()
    agent.work()
    assert control.run("run-1").status is RunStatus.APPLY_PENDING


def test_a_confirmation_that_died_between_slot_and_commit_can_be_repeated(
    control: ControlPlane, clock_ahead: Clock
) -> None:
    control.workspace()
    agent = control.agent()
    run = control.submit()
    planned = agent.work()
    assert control.slots.resume(run.id, planned.token, orders.new_token()) is not None
    clock_ahead(11)
    agent_beats(control, agent)
    reconcile(control)
    decide.confirm(control.system, run.id)
    assert agent.order().phase == "apply"


def test_a_plan_is_confirmed_in_the_moment_between_its_commit_and_its_reservation(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    control.workspace()
    agent = control.agent()
    run = control.submit()
    order = agent.order()
    agent.start(order)
    reserve = type(control.slots).reserve

    def confirmed_before(slots: SlotMap, run_id: str, token: str, until: float) -> bool:
        decide.confirm(control.system, run_id)
        return reserve(slots, run_id, token, until)

    with monkeypatch.context() as racing:
        racing.setattr(type(control.slots), "reserve", confirmed_before)
        agent.finish(order)
    agent.work()
    assert control.run(run.id).status is RunStatus.SUCCEEDED
    assert control.quiet()


def test_a_second_confirmation_in_the_same_moment_does_not_lose_the_plan(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    control.workspace()
    agent = control.agent()
    run = control.submit()
    agent.work()
    resume = type(control.slots).resume

    def another_first(slots: SlotMap, run_id: str, token: str, new_token: str) -> object:
        assert resume(slots, run_id, token, orders.new_token()) is not None
        return resume(slots, run_id, token, new_token)

    with monkeypatch.context() as racing:
        racing.setattr(type(control.slots), "resume", another_first)
        with pytest.raises(NotWaiting, match="by another request"):
            decide.confirm(control.system, run.id)
    assert control.run(run.id).status is RunStatus.APPLY_PENDING
    assert control.slots.find(run.id) is not None


def test_a_confirmation_that_was_only_slow_keeps_its_slot(control: ControlPlane) -> None:
    """F12: reconcile read it half-done, and its apply has started since."""
    control.workspace()
    agent = control.agent()
    run = control.submit()
    agent.work()
    seen = control.run(run.id)
    decide.confirm(control.system, run.id)
    lease = control.slots.find(run.id)
    assert lease is not None
    assert agent.start(agent.order())
    view = HeldRun(run.id, seen.status, agent.name, seen.token or "", 0.0, confirm_until=1.0)
    perform(
        RepairRun(Repair.REVERT_CONFIRMATION, view, lease),
        Context(control.system, control.spec(), listing(control), {run.id: seen}),
    )
    lease = control.slots.find(run.id)
    assert lease is not None
    assert lease.state is SlotState.RUNNING


def test_a_plan_that_was_reported_after_it_had_looked_lost_keeps_its_slot(control: ControlPlane) -> None:
    control.workspace()
    agent = control.agent()
    run_id = started(control, agent)
    seen, lease = control.run(run_id), control.slots.find(run_id)
    assert lease is not None
    finished = PhaseFinished(
        pool="default", agent=agent.name, run=run_id, token=lease.token, phase="plan", outcome="succeeded", changed=True
    )
    report.take(control.system, finished)
    view = HeldRun(run_id, seen.status, agent.name, lease.token, 0.0)
    perform(
        RequeueOrFail(view, "it was slow", lease),
        Context(control.system, control.spec(), listing(control), {run_id: seen}),
    )
    assert control.run(run_id).status is RunStatus.APPLY_PENDING
    assert control.slots.find(run_id) is not None


def test_a_cancel_that_comes_while_the_plan_is_reported_ends_the_run(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    control.workspace()
    agent = control.agent()
    run = control.submit()
    order = agent.order()
    agent.start(order)
    wait = report._wait_for_confirmation

    def cancelled_before(*arguments: Any) -> None:
        decide.cancel(control.system, run.id)
        wait(*arguments)

    monkeypatch.setattr(report, "_wait_for_confirmation", cancelled_before)
    agent.finish(order)
    assert control.run(run.id).status is RunStatus.CANCELLED
    assert control.quiet()


def test_an_apply_that_the_database_knows_to_have_started_is_not_repeated_though_redis_forgot_it(
    control: ControlPlane,
) -> None:
    """F9: Redis lost its last second in a crash, and then the agent went too."""
    control.workspace()
    run_id = started(control, control.agent(), phase="apply")
    lease = control.slots.find(run_id)
    assert lease is not None
    control.slots.release(run_id, lease.token)
    control.slots.register("default-1", "life-1", [replace(lease, redeemed=False)])
    lose_pod(control)
    assert control.run(run_id).reason is FailureReason.AGENT_LOST


def test_a_submission_is_accepted_though_dispatch_fails_at_the_moment(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is there and will run: its caller must not be told that it failed."""
    control.workspace()

    def locked(*_: object) -> None:
        raise Unavailable("The database was locked by other writers for too long.")

    with monkeypatch.context() as unlucky:
        unlucky.setattr(submit, "dispatch_new", locked)
        run = control.submit(PLAN)
    assert run.status is RunStatus.PENDING
    control.agent().work()
    assert control.run(run.id).status is RunStatus.SUCCEEDED


def test_a_lease_without_a_run_is_released(control: ControlPlane, clock_ahead: Clock) -> None:
    """F13."""
    agent = control.agent()
    control.slots.acquire("unknown-run", PLAN, orders.new_token())
    clock_ahead(11)
    agent_beats(control, agent)
    reconcile(control)
    assert control.quiet()


def test_an_agent_that_restarted_without_its_terraform_loses_the_run_and_frees_the_slot(
    control: ControlPlane, clock_ahead: Clock
) -> None:
    control.workspace()
    agent = control.agent()
    run_id = started(control, agent, phase="apply")
    restarted = HandAgent(control, agent.name, "life-2").register()
    agent_beats(control, restarted)
    clock_ahead(11)
    agent_beats(control, restarted)
    reconcile(control)
    assert control.run(run_id).reason is FailureReason.AGENT_LOST
    assert control.quiet()


def test_a_restarted_container_still_applies_the_plan_that_it_keeps(control: ControlPlane) -> None:
    control.workspace()
    agent = control.agent()
    run = control.submit()
    agent.work()
    restarted = HandAgent(control, agent.name, "life-2").register()
    decide.confirm(control.system, run.id)
    restarted.work()
    assert control.run(run.id).status is RunStatus.SUCCEEDED


def test_a_report_about_an_unknown_run_changes_nothing(control: ControlPlane) -> None:
    forged = PhaseFinished(pool="default", agent="a", run="none", token="x" * 16, phase="plan", outcome="succeeded")
    report.take(control.system, forged)
    with pytest.raises(UnknownRun):
        control.run("none")


def agent_beats(control: ControlPlane, agent: HandAgent) -> None:
    control.slots.heartbeat(agent.name, agent.instance_id, [], [])
