"""States that runs could not save: stored by the report reader, encrypted by a control worker, and waited for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.services.conftest import POOL, ControlPlane, HandAgent
from workers.core.approval import Actor, Origin
from workers.core.errors import IllegalTransition, LockNotEnded, NoRescuedState, StillInUse
from workers.core.lifecycle import RunStatus
from workers.protocol.kinds import FailureReason, RunKind
from workers.protocol.messages import Order, PhaseFinished, PhaseStarted
from workers.protocol.states import RescuedState, StateLock, StateStep, pack
from workers.services import workspaces
from workers.services.runs import decide, dispatch, locks, rescued, retention, states, submit, waiting
from workers.services.runs import report as reports
from workers.services.runs import views as run_views
from workers.services.runs.submit import RunRequest
from workers.services.secrets import credentials
from workers.slots.state_parcel import StateParcel
from workers.store import runs
from workers.store import states as stored

STATE = b'{"serial": 1, "secret": "hunter2"}'
RESCUED = {
    "rescued": RescuedState(bytes=len(STATE), sent=True),
    "error": "Failed to save state",
    "reason": "agent_error",
}


@pytest.fixture
def agent(control: ControlPlane) -> HandAgent:
    credentials.ensure_secret_for_pool(control.system, control.spec())
    control.workspace(auto_apply=True)
    return control.agent()


def sends(control: ControlPlane, run: str, state: bytes = STATE) -> str:
    """Send a state as an agent does: encrypted with its pool's key."""
    with control.system.database.read() as session:
        encrypted = credentials.payload_keyring(control.system, session, POOL).encrypt_bytes(pack([state]) or b"")
    StateParcel(control.redis, POOL, run).put(encrypted)
    return encrypted


def applies(control: ControlPlane, agent: HandAgent) -> Order:
    """Let a run reach its apply."""
    control.submit()
    agent.work()
    order = agent.order()
    assert agent.start(order)
    return order


def fails(control: ControlPlane, agent: HandAgent) -> str:
    order = applies(control, agent)
    sends(control, order.run)
    agent.finish(order, "failed", **RESCUED)
    assert control.run(order.run).status is RunStatus.FAILED
    return order.run


def submits(control: ControlPlane, decided: Callable[..., tuple[str, StateStep]], run: str) -> str:
    """Submit what a task would."""
    workspace, step = decided(control.system, run)
    control.count += 1
    task: Any = {"name": "terraform.state_push", "args": [], "kwargs": {"run_id": run}, "options": {}}
    request = RunRequest(workspace=workspace)
    return submit.submit(control.system, f"step-{control.count}", RunKind.PLAN, request, task, step=step).id


def record(control: ControlPlane, run: str) -> Any:
    with control.system.database.read() as session:
        found = stored.of(session, run)
        assert found is not None
        return found.content, found.in_transit, found.settled_as


class TestARescuedState:
    def test_is_stored_encrypted_with_its_run_and_leaves_redis(self, control: ControlPlane, agent: HandAgent) -> None:
        order = applies(control, agent)
        encrypted = sends(control, order.run)
        agent.finish(order, "failed", **RESCUED)
        assert record(control, order.run) == (encrypted, True, None)
        assert control.redis.keys("*:state:*") == []
        assert rescued.content(control.system, order.run) == STATE
        for _ in range(2):
            rescued.reencrypt(control.system)
        content, in_transit, _ = record(control, order.run)
        assert (content != encrypted, in_transit, b"hunter2" in content.encode()) == (True, False, False)
        assert rescued.reencrypt_all(control.system) == 1
        assert rescued.content(control.system, order.run) == STATE

    def test_ends_its_run_only_once_it_has_arrived(self, control: ControlPlane, agent: HandAgent) -> None:
        order = applies(control, agent)
        agent.finish(order, "failed", **RESCUED)
        assert control.run(order.run).status is RunStatus.APPLYING
        sends(control, order.run)
        for _ in range(2):
            agent.finish(order, "failed", **RESCUED)
        assert control.run(order.run).status is RunStatus.FAILED

    def test_that_a_dead_agent_has_not_sent_ends_its_run_all_the_same(
        self, control: ControlPlane, agent: HandAgent
    ) -> None:
        order = applies(control, agent)
        report = PhaseFinished(
            pool=POOL,
            agent=agent.name,
            run=order.run,
            token=order.token,
            phase=order.phase,
            outcome="failed",
            **RESCUED,
        )
        reports.take(control.system, report, left=True)
        assert record(control, order.run) == (None, False, None)
        for unavailable in (rescued.content, states.push):
            with pytest.raises(NoRescuedState, match=f"stayed on its agent {agent.name}"):
                unavailable(control.system, order.run)
        assert control.submit().status is RunStatus.PENDING

    @pytest.mark.parametrize("planted", ["list", "long", "binary"])
    def test_in_whose_place_an_agent_has_put_something_else_is_none(
        self, control: ControlPlane, agent: HandAgent, monkeypatch: pytest.MonkeyPatch, planted: str
    ) -> None:
        monkeypatch.setattr("workers.slots.state_parcel.MAX_ENCRYPTED", 1_000)
        order = applies(control, agent)
        key = f"ts:{{{POOL}}}:state:{order.run}"
        if planted == "list":
            control.redis.lpush(key, "x")
        else:
            control.redis.set(key, "x" * 1_001 if planted == "long" else b"\xff")
        agent.finish(order, "failed", **RESCUED)
        assert control.run(order.run).status is RunStatus.APPLYING

    def test_that_no_key_decrypts_keeps_no_other_from_being_encrypted_with_the_platforms_keys(
        self, control: ControlPlane, agent: HandAgent
    ) -> None:
        order = applies(control, agent)
        StateParcel(control.redis, POOL, order.run).put("garbage")
        agent.finish(order, "failed", **RESCUED)
        states.give_up(control.system, order.run)
        other = fails(control, agent)
        rescued.reencrypt(control.system)
        assert [record(control, run)[1] for run in (order.run, other)] == [True, False]
        assert rescued.content(control.system, other) == STATE

    def test_that_was_pushed_is_not_given_up_by_one_who_saw_it_before(
        self, control: ControlPlane, agent: HandAgent, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Held open by hand: the push is stored between the look and the write."""
        run, now = fails(control, agent), control.system.now()
        real = stored.settle

        def settle(session: Any, run: str, workspace: str, how: str, at: Any) -> bool:
            monkeypatch.setattr(stored, "settle", real)
            assert real(session, run, workspace, stored.PUSHED, now)
            return real(session, run, workspace, how, at)

        monkeypatch.setattr(stored, "settle", settle)
        with pytest.raises(IllegalTransition, match="was pushed already"):
            states.give_up(control.system, run)

    def test_holds_the_runs_that_would_change_the_state_until_it_is_given_up(
        self, control: ControlPlane, agent: HandAgent
    ) -> None:
        run = fails(control, agent)
        held = control.submit()
        assert (held.status, dispatch.dispatch(control.system, POOL)) == (RunStatus.PENDING, 0)
        view = run_views.view(held)
        reason = waiting.reasons(control.system, [held.id])[held.id]
        assert reason.startswith(f"run {run} could not save the workspace's state: `terraslot state push {run}`")
        assert control.submit(RunKind.PLAN).status is RunStatus.PLANNING
        assert f"The state of run {run} is not saved" in (run_views.unsaved(control.system.database, view) or "")
        with pytest.raises(StillInUse):
            workspaces.delete(control.system, "net")

        origin = Origin("task-1", Actor("ana"), "pushed it by hand")
        for _ in range(2):  # one message, delivered twice
            assert decide.deduplicate(control.system, run, origin, states.give_up)["run_id"] == run
        assert control.run(held.id).status is RunStatus.PLANNING
        happened = run_views.events(control.system.database, run_views.view(control.run(run)))[-1]
        assert (happened.event, happened.detail["actor"]) == ("rescued state given up", "ana")
        with pytest.raises(IllegalTransition, match="given up already"):
            states.give_up(control.system, run)
        assert rescued.content(control.system, run) == STATE

    def test_is_pushed_by_a_run_that_gets_it_with_its_order(self, control: ControlPlane, agent: HandAgent) -> None:
        run, held = fails(control, agent), control.submit()
        rescued.reencrypt(control.system)
        pushing = submits(control, states.push, run)
        order = agent.order()
        assert (order.run, order.options.state) == (pushing, StateStep(push=run))
        sent = StateParcel(control.redis, POOL, pushing).get()
        with control.system.database.read() as session:
            keys = credentials.payload_keyring(control.system, session, POOL)
        assert keys.decrypt_bytes(sent or "") == pack([STATE])
        agent.start(order)
        agent.finish(order, changed=False)
        assert record(control, run) == (None, False, "pushed")
        assert control.redis.keys("*:state:*") == []
        assert control.run(held.id).status is RunStatus.PLANNING
        for again in (states.push, rescued.content, states.give_up):
            with pytest.raises(IllegalTransition, match="was pushed"):
                again(control.system, run)

    def test_that_was_not_pushed_after_all_holds_them_still(self, control: ControlPlane, agent: HandAgent) -> None:
        run = fails(control, agent)
        submits(control, states.push, run)
        agent.work(outcome="failed", reason=FailureReason.TERRAFORM_FAILED, error="serial")
        assert record(control, run)[2] is None
        assert control.submit().status is RunStatus.PENDING

    def test_outlives_the_retention_of_its_run_until_it_is_settled(
        self, control: ControlPlane, agent: HandAgent, clock_ahead: Callable[[float], None]
    ) -> None:
        run = fails(control, agent)
        with control.system.database.begin() as session:
            runs.mark_delivered(session, [run], control.system.now())
        clock_ahead(400 * 86_400)
        assert retention.purge(control.system)["runs"] == 0
        states.give_up(control.system, run)
        assert retention.purge(control.system)["runs"] == 1

    def test_there_is_none_of_a_run_that_saved_it(self, control: ControlPlane) -> None:
        control.workspace()
        run = control.submit(RunKind.PLAN).id
        for wanted in (states.push, rescued.content, states.give_up):
            with pytest.raises(NoRescuedState, match="has left no state"):
                wanted(control.system, run)

    def test_is_pushed_by_no_agent_of_0_1(self, control: ControlPlane, agent: HandAgent) -> None:
        run = fails(control, agent)
        control.slots.register(agent.name, "life-1")
        submits(control, states.push, run)
        assert agent.orders() == []


class TestALock:
    def starts(self, control: ControlPlane, agent: HandAgent, order: Order, at: float) -> None:
        assert control.slots.redeem(agent.name, order.run, order.token)
        about = {"pool": POOL, "agent": agent.name, "run": order.run, "token": order.token, "phase": order.phase}
        reports.take(control.system, PhaseStarted(**about, locks_as="root@vm", clock=at))

    def meets(self, control: ControlPlane, agent: HandAgent, who: str = "root@vm") -> str:
        """Let a run meet a lock that was taken just now."""
        lock = StateLock(
            id="l1", who=who, operation="OperationTypeApply", created=f"{self.taken:%Y-%m-%dT%H:%M:%S.%fZ}"
        )
        run = control.submit(workspace="net").id
        agent.work(outcome="failed", reason=FailureReason.TERRAFORM_FAILED, error="locked", lock=lock)
        return run

    def test_of_a_dead_run_is_named_and_ended_by_another_once(self, control: ControlPlane, agent: HandAgent) -> None:
        control.submit()
        agent.work()
        order = agent.order()
        self.starts(control, agent, order, control.system.now().timestamp())
        self.taken = control.system.now()
        agent.finish(order, "failed", reason=FailureReason.AGENT_LOST, error="killed")
        met = self.meets(control, agent)
        error = control.run(met).error or ""
        assert error.startswith(f"The state is locked by root@vm since {self.taken:%Y-%m-%dT%H:%M}")
        assert f"That was the apply of run {order.run}, which is over" in error
        assert f"`terraslot unlock {met}`" in error
        view = locks.shown(control.system, met)
        assert view is not None
        assert (view.holder, view.alive, view.ended_at) == (order.run, False, None)

        assert locks.unlock(control.system, order.run) == locks.unlock(control.system, met)
        submits(control, locks.unlock, met)
        ending = agent.order()
        assert ending.options.state == StateStep(unlock="l1")
        agent.start(ending)
        agent.finish(ending, changed=False)
        with pytest.raises(LockNotEnded, match="was ended"):
            locks.unlock(control.system, met)
        ended = run_views.events(control.system.database, run_views.view(control.run(met)))[-1]
        assert (ended.event, ended.detail) == ("state lock ended", {"by": ending.run})

    def test_of_a_dead_run_is_not_waited_for_by_agents_that_know_how(
        self, control: ControlPlane, agent: HandAgent
    ) -> None:
        control.submit()
        planned = agent.work()
        assert planned.dead_holders == ()
        order = agent.order()
        at = control.system.now().timestamp()
        self.starts(control, agent, order, at - 60)
        agent.finish(order, "failed", reason=FailureReason.AGENT_LOST, error="killed")
        control.submit()
        (dead,) = agent.work(outcome="failed", reason=FailureReason.TERRAFORM_FAILED, error="locked").dead_holders
        assert (dead.who, dead.since, dead.until - dead.since < 60) == ("root@vm", at - 60, True)
        assert control.submit(RunKind.PLAN).attempt == 1
        assert agent.work(changed=False).dead_holders == ()

        control.slots.deregister(agent.name, agent.instance_id)
        older = HandAgent(control, "default-2", "life-1").register()
        control.submit()
        assert older.work(outcome="failed", reason=FailureReason.TERRAFORM_FAILED, error="locked").dead_holders == ()

    def test_of_a_plan_whose_agent_died_is_not_waited_for_when_it_is_made_anew(
        self, control: ControlPlane, agent: HandAgent
    ) -> None:
        run = control.submit().id
        self.starts(control, agent, agent.order(), control.system.now().timestamp())
        reports.agent_gone(control.system, POOL, agent.name, agent.instance_id, "killed")
        again = control.agent("default-2").order()
        assert (again.run, [each.who for each in again.dead_holders]) == (run, ["root@vm"])

    def test_of_a_living_run_or_of_anybody_else_is_not_ended(self, control: ControlPlane, agent: HandAgent) -> None:
        control.workspace("other", auto_apply=True)
        control.submit(workspace="other")
        agent.work()
        holding = agent.order()
        self.starts(control, agent, holding, control.system.now().timestamp())
        self.taken = control.system.now()
        second = control.agent("default-2")
        met = self.meets(control, second)
        assert f"That is the apply of run {holding.run}, which is not known to have ended" in (
            control.run(met).error or ""
        )
        others = self.meets(control, second, who="ana@laptop")
        assert "No run of this system is known to hold that lock" in (control.run(others).error or "")
        for run in (met, others):
            with pytest.raises(LockNotEnded, match="The lock is not ended"):
                locks.unlock(control.system, run)
        with pytest.raises(LockNotEnded, match="has met no lock"):
            locks.unlock(control.system, control.submit(RunKind.PLAN).id)


def test_no_caller_asks_for_a_step_by_an_option() -> None:
    with pytest.raises(ValueError, match="state"):
        RunRequest(workspace="net", state={"push": "run-1"})
