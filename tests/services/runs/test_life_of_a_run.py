"""A run's way through the services, from submission to delivery, and each way it can end."""

from __future__ import annotations

import pytest

from tests.services.conftest import ControlPlane
from workers.core.errors import (
    AgentGone,
    IllegalTransition,
    NotWaiting,
    RunCancelled,
    RunDiscarded,
    RunExpired,
    RunFailed,
    UnknownRun,
    UnknownWorkspace,
)
from workers.core.lifecycle import RunStatus
from workers.protocol.errors import InvalidRequest
from workers.protocol.kinds import FailureReason, RunKind
from workers.protocol.leases import SlotState
from workers.protocol.messages import Changes, PhaseStarted
from workers.services.runs import decide, outcome, submit
from workers.services.runs.submit import RunRequest
from workers.services.scaling.reconcile import reconcile_pods
from workers.store import run_queries

PLAN, APPLY = RunKind.PLAN, RunKind.PLAN_AND_APPLY


def test_a_plan_is_planned_on_a_plan_only_slot_and_delivered(control: ControlPlane) -> None:
    control.workspace()
    agent = control.agent()
    run = control.submit(PLAN)
    assert (run.status, run.agent, run.slot) == (RunStatus.PLANNING, "default-1", 1)
    assert control.celery_state(run.id) == "PLANNING"

    agent.work(changes=Changes(add=2, change=1), outputs={"url": "x"})

    run = control.run(run.id)
    assert outcome.outcome(run) == {
        "run_id": run.id,
        "workspace": "net",
        "status": "succeeded",
        "changes": {"add": 2, "change": 1, "destroy": 0},
        "outputs": {"url": "x"},
        "agent": "default-1",
        "slot": 1,
        "attempt": 1,
    }
    assert control.deliveries() == [run.id]
    assert control.quiet()


def test_a_start_that_is_reported_again_is_entered_once_and_its_commit_when_it_is_known(control: ControlPlane) -> None:
    """The agent of a git workspace reports its start, and once more when it knows the commit; each may arrive twice."""
    control.workspace()
    agent = control.agent()
    run = control.submit()
    order = agent.order()
    assert agent.start(order)
    for commit in (None, "c0ffee", None, "c0ffee"):
        agent._report(PhaseStarted, order, phase=order.phase, commit=commit)

    with control.system.database.read() as session:
        entered = [(each.event, (each.detail or {}).get("commit")) for each in run_queries.events(session, run.id)]
    assert entered[2:] == [("plan started", None), ("commit resolved", "c0ffee")]
    assert control.run(run.id).commit == "c0ffee"


def test_an_apply_waits_for_a_person_and_runs_on_the_same_agent_and_slot(control: ControlPlane) -> None:
    control.workspace()
    agent = control.agent()
    run = control.submit()
    planned = agent.work()
    waiting = control.run(run.id)
    lease = control.slots.find(run.id)
    assert (waiting.status, control.celery_state(run.id)) == (RunStatus.APPLY_PENDING, "APPLY_PENDING")
    assert lease is not None
    assert (lease.state, lease.slot) == (SlotState.RESERVED, 0)

    decide.confirm(control.system, run.id)
    applied = agent.work(outputs={"a": 1})

    assert (applied.phase, applied.slot) == ("apply", planned.slot)
    assert applied.token != planned.token
    over = control.run(run.id)
    assert (over.status, over.agent, over.outputs, over.changes_add) == (RunStatus.SUCCEEDED, "default-1", {"a": 1}, 1)
    assert control.deliveries() == [run.id]
    assert control.quiet()


def test_a_plan_without_changes_ends_the_run_and_asks_nobody(control: ControlPlane) -> None:
    control.workspace()
    agent = control.agent()
    run = control.submit()
    agent.work(changed=False)
    assert control.run(run.id).status is RunStatus.SUCCEEDED
    assert control.quiet()


def test_auto_apply_goes_on_with_the_same_lease_and_a_new_token(control: ControlPlane) -> None:
    control.workspace(auto_apply=True)
    agent = control.agent()
    run = control.submit()
    plan = agent.work()
    assert control.run(run.id).status is RunStatus.APPLYING
    apply = agent.work()
    assert (apply.slot, apply.phase) == (plan.slot, "apply")
    assert control.run(run.id).status is RunStatus.SUCCEEDED
    assert control.quiet()


def test_a_request_may_ask_for_confirmation_where_its_workspace_would_not(control: ControlPlane) -> None:
    control.workspace(auto_apply=True)
    agent = control.agent()
    run = control.submit(auto_apply=False)
    agent.work()
    assert control.run(run.id).status is RunStatus.APPLY_PENDING


def test_a_run_waits_while_nobody_is_there_and_starts_with_the_first_agent(control: ControlPlane) -> None:
    """F14, F16: only registered agents get runs, and registration wakes the dispatcher."""
    control.workspace()
    run = control.submit()
    assert (run.status, control.celery_state(run.id)) == (RunStatus.PENDING, "PENDING")
    assert control.system.celery.AsyncResult(run.id).info["run_id"] == run.id
    control.agent()
    assert control.run(run.id).status is RunStatus.PLANNING


def test_state_changing_runs_of_a_workspace_go_one_after_the_other_and_plans_beside_them(
    control: ControlPlane,
) -> None:
    control.workspace()
    agents = [control.agent("default-1"), control.agent("default-2")]
    first, second, beside = control.submit(), control.submit(), control.submit(PLAN)
    assert [control.run(run.id).status for run in (first, second, beside)] == ["planning", "pending", "planning"]
    (order,) = [order for agent in agents for order in agent.orders() if order.run == first.id]
    agent = next(agent for agent in agents if agent.name == control.run(first.id).agent)
    agent.start(order)
    agent.finish(order, changed=False)
    assert control.run(second.id).status is RunStatus.PLANNING


def test_higher_priority_starts_first_and_age_decides_among_equals(control: ControlPlane) -> None:
    for name in "abc":
        control.workspace(name)
    control.submit(workspace="a")
    control.submit(workspace="b", priority=5)
    control.submit(workspace="c")
    for expected in ("b", "a", "c"):
        agent = control.agent(f"default-{expected}")
        assert agent.order().workspace == expected


def test_terraforms_own_words_reach_the_caller(control: ControlPlane) -> None:
    control.workspace()
    agent = control.agent()
    run = control.submit()
    agent.work(outcome="failed", reason=FailureReason.TERRAFORM_FAILED, error="Error: Unsupported argument")
    with pytest.raises(RunFailed, match=r"run-1 of workspace net failed \(terraform_failed\): Error: Unsupported"):
        outcome.outcome(control.run(run.id))
    assert control.quiet()


def test_a_discarded_run_raises_at_its_caller_and_frees_slot_and_workspace(control: ControlPlane) -> None:
    control.workspace()
    agent = control.agent()
    run, next_one = control.submit(), control.submit()
    agent.work()
    decide.discard(control.system, run.id)
    with pytest.raises(RunDiscarded):
        outcome.outcome(control.run(run.id))
    assert control.run(next_one.id).status is RunStatus.PLANNING


def test_only_a_waiting_run_is_confirmed_or_discarded_and_only_once(control: ControlPlane) -> None:
    control.workspace()
    agent = control.agent()
    run = control.submit()
    for verb in (decide.confirm, decide.discard):
        with pytest.raises(NotWaiting, match="it is planning, not waiting"):
            verb(control.system, run.id)
    agent.work()
    decide.confirm(control.system, run.id)
    for verb in (decide.confirm, decide.discard):
        with pytest.raises(NotWaiting, match="it is applying"):
            verb(control.system, run.id)
    agent.work()
    assert control.quiet()


def test_what_does_not_exist_is_named(control: ControlPlane) -> None:
    with pytest.raises(UnknownWorkspace, match="'nowhere'"):
        control.submit(workspace="nowhere")
    for verb in (decide.confirm, decide.discard, decide.cancel):
        with pytest.raises(UnknownRun, match="'nothing'"):
            verb(control.system, "nothing")


def test_a_task_id_that_means_something_elsewhere_is_refused(control: ControlPlane) -> None:
    control.workspace()
    with pytest.raises(InvalidRequest, match="can't be a run's id"):
        submit.submit(control.system, "../../etc", PLAN, RunRequest(workspace="net"), {})


def test_the_same_task_twice_is_one_run(control: ControlPlane) -> None:
    control.workspace()
    agent = control.agent()
    task = {"name": "terraform.plan", "args": [], "kwargs": {}, "options": {"task_id": "same"}}
    for _ in range(2):
        submit.submit(control.system, "same", PLAN, RunRequest(workspace="net"), task)
    assert len(agent.orders()) == 1


def test_a_plan_that_nobody_confirms_expires(control: ControlPlane, clock_ahead) -> None:  # type: ignore[no-untyped-def]
    control.workspace(confirm_timeout=60)
    agent = control.agent()
    run = control.submit()
    agent.work()
    reconcile_pods(control.system, control.spec())
    assert control.run(run.id).status is RunStatus.APPLY_PENDING
    clock_ahead(61)
    reconcile_pods(control.system, control.spec())
    with pytest.raises(RunExpired):
        outcome.outcome(control.run(run.id))
    assert control.quiet()


class TestCancel:
    def test_a_pending_run_ends_at_once(self, control: ControlPlane) -> None:
        control.workspace()
        run = control.submit()
        decide.cancel(control.system, run.id)
        with pytest.raises(RunCancelled):
            outcome.outcome(control.run(run.id))
        assert control.deliveries() == [run.id]

    def test_an_order_that_was_not_taken_is_taken_back_and_starts_nothing(self, control: ControlPlane) -> None:
        control.workspace()
        agent = control.agent()
        run = control.submit()
        order = agent.order()
        assert decide.cancel(control.system, run.id).status is RunStatus.CANCELLED
        assert not agent.start(order)
        assert control.quiet()

    def test_an_executing_run_is_over_only_when_its_agent_says_so(self, control: ControlPlane) -> None:
        """F12."""
        control.workspace()
        agent = control.agent()
        run, next_one = control.submit(), control.submit()
        order = agent.order()
        agent.start(order)
        assert decide.cancel(control.system, run.id).status is RunStatus.PLANNING
        assert control.run(next_one.id).status is RunStatus.PENDING
        reply = control.slots.heartbeat(agent.name, agent.instance_id, [order.token], [])
        assert reply.cancels == ((order.token, "interrupt"),)
        agent.finish(order, "cancelled", error="Interrupted")
        assert control.run(run.id).status is RunStatus.CANCELLED
        assert control.run(next_one.id).status is RunStatus.PLANNING

    def test_force_asks_for_a_kill(self, control: ControlPlane) -> None:
        control.workspace()
        agent = control.agent()
        run = control.submit()
        order = agent.order()
        agent.start(order)
        decide.cancel(control.system, run.id)
        decide.cancel(control.system, run.id, force=True)
        reply = control.slots.heartbeat(agent.name, agent.instance_id, [order.token], [])
        assert reply.cancels == ((order.token, "kill"),)

    def test_a_plan_that_finished_before_the_interrupt_is_not_kept_for_anybody(self, control: ControlPlane) -> None:
        control.workspace()
        agent = control.agent()
        run = control.submit()
        order = agent.order()
        agent.start(order)
        decide.cancel(control.system, run.id)
        agent.finish(order)
        assert control.run(run.id).status is RunStatus.CANCELLED
        assert control.quiet()

    def test_a_waiting_run_is_cancelled_and_its_slot_freed(self, control: ControlPlane) -> None:
        control.workspace()
        agent = control.agent()
        run = control.submit()
        agent.work()
        decide.cancel(control.system, run.id)
        assert control.run(run.id).status is RunStatus.CANCELLED
        assert control.quiet()

    def test_a_run_that_is_over_can_not_be_cancelled(self, control: ControlPlane) -> None:
        control.workspace()
        agent = control.agent()
        run = control.submit(PLAN)
        agent.work()
        with pytest.raises(IllegalTransition, match="is over already"):
            decide.cancel(control.system, run.id)


def test_a_confirmation_after_the_agents_loss_plans_anew_and_says_so(control: ControlPlane) -> None:
    control.workspace()
    agent = control.agent()
    reconcile_pods(control.system, control.spec())
    run = control.submit()
    agent.work()
    control.slots.deregister(agent.name)
    with pytest.raises(AgentGone, match="the plan is made anew"):
        decide.confirm(control.system, run.id)
    assert control.run(run.id).status is RunStatus.PENDING
    other = control.agent("default-2")
    other.work()
    assert control.run(run.id).status is RunStatus.APPLY_PENDING


def test_a_pool_is_as_full_as_its_leases_however_many_runs_it_has_seen(control: ControlPlane) -> None:
    """F15: what counts is what holds a slot, not what was launched."""
    control.workspace()
    agent = control.agent()
    for _ in range(4):
        launched = [control.submit(PLAN) for _ in range(4)]
        statuses = [run.status for run in launched]
        assert statuses == [RunStatus.PLANNING] * 3 + [RunStatus.PENDING]
        for order in agent.orders():
            assert agent.start(order)
            agent.finish(order)
        agent.work()
        assert control.quiet()
