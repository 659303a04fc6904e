"""Three views and what follows where they disagree, as tables of plain values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.core.actions import (
    Action,
    CancelRun,
    DeletePod,
    DeregisterAgent,
    DrainAgent,
    FinishRemoval,
    ReleaseLease,
    Repair,
    RepairRun,
    RequeueOrFail,
    UndrainAgent,
)
from workers.core.lifecycle import RunStatus
from workers.core.pods import Pod, PodPhase
from workers.core.pools import PoolLimits, PoolTimeouts
from workers.core.reconcile import empty_list_is_suspicious, reconcile
from workers.core.views import HeldRun, Views
from workers.protocol.kinds import RunKind
from workers.protocol.leases import AgentRecord, CancelMode, Lease, SlotState
from workers.protocol.version import OLDEST_AGENT, PROTOCOL
from workers.specs.pools import PoolSpec

NOW = 100_000.0
SPEC = PoolSpec(
    name="default",
    limits=PoolLimits(start_deadline=300),
    timeouts=PoolTimeouts(silent=30, dead=300, redeem=60, interrupt=100),
)


def pod(name: str = "a", *, age: float = 1000, phase: PodPhase = PodPhase.RUNNING, **more: object) -> Pod:
    return Pod(name, f"uid-{name}", "default", age, phase, **more)  # type: ignore[arg-type]


def lease(run: str = "r1", *, age: float = 5, state: SlotState = SlotState.RUNNING, **more: object) -> Lease:
    facts = {"token": "t1", "redeemed": True} | more
    return Lease(run, RunKind.PLAN_AND_APPLY, "a", 0, state=state, since=NOW - age, **facts)  # type: ignore[arg-type]


def agent(
    *leases: Lease, name: str = "a", beat: float = 1, silent: bool = False, draining: bool = False,
    instance_id: str = "life-1",
) -> AgentRecord:  # fmt: skip
    return AgentRecord(name, instance_id, draining, silent, NOW - 1000, NOW - beat, None, leases)


def run(run_id: str = "r1", status: RunStatus = RunStatus.PLANNING, *, age: float = 5, **more: object) -> HeldRun:
    facts = {"agent": "a", "token": "t1"} | more
    return HeldRun(run_id, status, changed_at=NOW - age, **facts)  # type: ignore[arg-type]


def actions(*, runs: object = (), agents: object = (), pods: object = (), watched: float = 10_000) -> list[Action]:
    views = Views(list(runs), list(agents), list(pods), NOW - watched, NOW, NOW)  # type: ignore[call-overload]
    return reconcile(views, SPEC)


def test_three_views_that_agree_need_nothing() -> None:
    assert actions(runs=[run()], agents=[agent(lease())], pods=[pod()]) == []


def test_an_agent_whose_pod_is_gone_is_deregistered() -> None:
    assert actions(agents=[agent()]) == [DeregisterAgent("a", "life-1")]


class TestAnAgentOfAnUnsupportedVersion:
    """F38: it gets nothing new, ends what it holds, and is replaced like a pod that failed to start."""

    def test_drains_at_once(self) -> None:
        [action] = actions(agents=[agent(instance_id="0.life")], pods=[pod()])
        assert isinstance(action, DrainAgent)
        assert "version 0 of the protocol" in action.reason

    def test_keeps_what_it_holds(self) -> None:
        old = agent(lease(), instance_id="0.life", draining=True)
        assert actions(runs=[run()], agents=[old], pods=[pod()]) == []

    def test_is_deleted_when_it_drains_and_holds_nothing(self) -> None:
        [action] = actions(agents=[agent(instance_id="0.life", draining=True)], pods=[pod()])
        assert isinstance(action, DeletePod)
        assert action.failed_to_start
        assert "update the pool's image" in action.reason

    @pytest.mark.parametrize(
        "instance_id", ["life", f"{OLDEST_AGENT}.life", f"{PROTOCOL}.life", f"{PROTOCOL + 1}.life"]
    )
    def test_is_none_of_a_supported_or_a_later_one(self, instance_id: str) -> None:
        assert actions(agents=[agent(instance_id=instance_id)], pods=[pod()]) == []


def test_a_silent_agent_keeps_its_runs_while_its_pod_is_listed() -> None:
    """F12: terraform may still run."""
    assert actions(runs=[run()], agents=[agent(lease(), beat=200)], pods=[pod()]) == []


def test_an_agent_that_is_silent_for_too_long_has_its_pod_deleted() -> None:
    (action,) = actions(agents=[agent(beat=301)], pods=[pod()])
    assert isinstance(action, DeletePod)
    assert action.reason == "it has been silent for 301 s"


def test_a_time_in_which_the_map_was_not_watched_counts_as_no_silence() -> None:
    """F8: Redis was away, or came back empty; every agent has its full time again."""
    assert actions(agents=[agent(beat=5000)], pods=[pod()], watched=299) == []
    assert actions(runs=[run()], pods=[pod(age=5000)], watched=299) == []


def test_a_starting_pod_is_kept_until_its_deadline_and_replaced_after_it() -> None:
    """F2, F4, F16."""
    assert actions(pods=[pod(age=299)]) == []
    (action,) = actions(pods=[pod(age=301, phase=PodPhase.PENDING, reason="ImagePullBackOff")])
    assert isinstance(action, DeletePod)
    assert action.failed_to_start
    assert action.reason == "it did not register within 300 s (ImagePullBackOff)"


@pytest.mark.parametrize("phase", [PodPhase.FAILED, PodPhase.SUCCEEDED])
def test_a_pod_that_ended_by_itself_is_deleted_with_its_reason(phase: PodPhase) -> None:
    (action,) = actions(pods=[pod(phase=phase, reason="Evicted")], agents=[agent()])
    assert isinstance(action, DeletePod)
    assert (action.reason, action.failed_to_start) == ("Evicted", False)


def test_only_a_pod_that_failed_before_its_agent_registered_counts_as_failed_to_start() -> None:
    """F6: creation backs off from pods that can't start, not from agents that were stopped."""
    (broken,) = actions(pods=[pod(phase=PodPhase.FAILED)])
    (stopped,) = actions(pods=[pod(phase=PodPhase.SUCCEEDED)])
    assert isinstance(broken, DeletePod)
    assert isinstance(stopped, DeletePod)
    assert (broken.failed_to_start, stopped.failed_to_start) == (True, False)


def test_a_pod_that_is_being_deleted_is_not_judged_again() -> None:
    assert actions(pods=[pod(phase=PodPhase.FAILED, deleting=True)]) == []


def test_the_removal_of_a_claimed_agent_is_finished_unless_it_holds_a_run() -> None:
    claimed = replace(agent(), claim="another")
    assert actions(agents=[claimed], pods=[pod()]) == [FinishRemoval(pod(), "another")]
    assert actions(agents=[claimed], pods=[replace(pod(), deleting=True)]) == []
    busy = replace(agent(lease()), claim="another")
    assert actions(runs=[run()], agents=[busy], pods=[pod()]) == []


def test_an_agent_whose_pod_is_ending_drains() -> None:
    """F3: a node is drained, a spot node is taken back: the cluster ends the pod."""
    assert actions(agents=[agent()], pods=[pod(deleting=True)]) == [DrainAgent("a")]
    draining = AgentRecord("a", "life-1", True, False, NOW - 1000, NOW - 1, None, ())
    assert actions(agents=[draining], pods=[pod(deleting=True)]) == []


def test_an_agent_that_comes_to_a_draining_pool_drains() -> None:
    draining = SPEC.model_copy(update={"draining": True})
    views = Views([], [agent(), agent(name="b", draining=True)], [pod(), pod("b")], NOW - 1000, NOW, NOW)
    assert reconcile(views, draining) == [DrainAgent("a", "its pool drains")]


_FREE, _BY_HAND = agent(), agent(draining=True)
_FOR_NODE = replace(_BY_HAND, cordoned=True)
_ITS_NODE, _NONE = frozenset({"n"}), frozenset[str]()


@pytest.mark.parametrize(
    ("record", "cordoned", "expected"),
    [
        (_FREE, _ITS_NODE, [DrainAgent("a", "its node n takes no pods", cordon=True)]),
        (_FREE, _NONE, []),
        (_FREE, None, []),
        (_FOR_NODE, _ITS_NODE, []),
        (_FOR_NODE, _NONE, [UndrainAgent("a")]),
        (_FOR_NODE, None, []),  # not known: what was decided stays
        (_BY_HAND, _ITS_NODE, []),
        (_BY_HAND, _NONE, []),
    ],
)
def test_an_agent_drains_as_long_as_its_node_takes_no_pods(
    record: AgentRecord, cordoned: frozenset[str] | None, expected: list[Action]
) -> None:
    """F45; and a person's drain is ended by nobody else."""
    views = Views([], [record], [pod(node="n")], NOW - 1000, NOW, NOW, cordoned)
    assert reconcile(views, SPEC) == expected


def test_a_drain_for_a_node_becomes_one_for_good_where_its_pod_ends_or_its_pool_drains() -> None:
    ending = Views([], [_FOR_NODE], [pod(node="n", deleting=True)], NOW - 1000, NOW, NOW, _NONE)
    assert reconcile(ending, SPEC) == [DrainAgent("a")]
    draining = Views([], [_FOR_NODE], [pod(node="n")], NOW - 1000, NOW, NOW, _NONE)
    assert reconcile(draining, SPEC.model_copy(update={"draining": True})) == [DrainAgent("a", "its pool drains")]


def test_a_run_that_a_restarted_agent_lost_says_why_it_was_restarted() -> None:
    lost = lease(lost_since=NOW - 12)
    restarted = pod(reason="restarted once; OOMKilled (exit code 137)")
    (action,) = actions(runs=[run()], agents=[agent(lost)], pods=[restarted])
    assert isinstance(action, RequeueOrFail)
    assert action.reason.endswith("no longer executes it (restarted once; OOMKilled (exit code 137))")


def test_a_run_is_kept_while_its_agent_was_not_heard_since_it_seemed_lost() -> None:
    """F12: a heartbeat may be on its way while a token is redeemed; only the next ones tell."""
    lost = lease(lost_since=NOW - 60)
    assert actions(runs=[run()], agents=[agent(lost, beat=55)], pods=[pod()]) == []
    (action,) = actions(runs=[run()], agents=[agent(lost, beat=49)], pods=[pod()])
    assert isinstance(action, RequeueOrFail)


def test_an_empty_list_is_suspicious_while_a_busy_agent_is_heard() -> None:
    """F24, F8."""

    def suspicious(*agents: AgentRecord, pods: tuple[Pod, ...] = ()) -> bool:
        return empty_list_is_suspicious(Views([], agents, pods, 0, NOW, NOW))

    assert suspicious(agent(lease(), beat=1))
    assert not suspicious(agent(lease(), beat=6))
    assert not suspicious(agent(beat=1))
    assert not suspicious(agent(lease(), beat=1), pods=(pod("b"),))
    assert not suspicious()


def test_a_run_whose_agent_and_pod_are_both_gone_is_requeued_or_fails() -> None:
    """F7."""
    (action,) = actions(runs=[run()])
    assert action == RequeueOrFail(run(), "its agent a is gone")


def test_a_run_that_its_agent_no_longer_knows_is_requeued_or_fails_after_the_consistency_grace() -> None:
    assert actions(runs=[run(age=5)], agents=[agent()], pods=[pod()]) == []
    (action,) = actions(runs=[run(age=11)], agents=[agent()], pods=[pod()])
    assert isinstance(action, RequeueOrFail)


def ordered(waiting: HeldRun, held: Lease, **facts: float) -> list[Action]:
    return actions(runs=[waiting], agents=[agent(held)], pods=[pod()], **facts)


def test_an_order_that_was_not_redeemed_is_sent_again_and_then_revoked() -> None:
    sent = [lease(age=age, redeemed=False) for age in (5, 20, 61)]
    assert ordered(run(age=5), sent[0]) == []
    assert ordered(run(age=20), sent[1]) == [RepairRun(Repair.RESEND_ORDER, run(age=20), sent[1])]
    assert ordered(run(age=61), sent[2]) == [RepairRun(Repair.REVOKE_ORDER, run(age=61), sent[2])]


def test_a_time_in_which_the_map_was_not_watched_does_not_count_for_an_order() -> None:
    """F8: Redis was away, and its agent with it."""
    sent = lease(age=500, redeemed=False)
    assert ordered(run(age=500), sent, watched=5) == []
    assert ordered(run(age=500), sent, watched=20) == [RepairRun(Repair.RESEND_ORDER, run(age=500), sent)]


def test_an_order_whose_token_is_not_in_the_database_is_revoked_and_not_sent_again() -> None:
    newer = lease(age=61, redeemed=False, token="t2")
    assert ordered(run(age=70), newer) == [RepairRun(Repair.REVOKE_ORDER, run(age=70), newer)]
    younger = lease(age=20, redeemed=False, token="t2")
    assert ordered(run(age=70), younger) == []


def test_an_order_that_is_known_to_have_started_is_not_revoked() -> None:
    """F9: Redis lost its last second, and with it that the token was redeemed; the database knows it."""
    assert ordered(run(started=True, age=61), lease(age=61, redeemed=False)) == []
    started, newer = run(started=True, age=70), lease(age=61, redeemed=False, token="t2")
    assert ordered(started, newer) == [RepairRun(Repair.REVOKE_ORDER, started, newer)]


class TestAnApplyOrderedFromASilentAgent:
    """The plan is on that agent alone."""

    APPLYING = run(status=RunStatus.APPLYING, age=500, deadline=NOW + 100)
    PAUSED = replace(APPLYING, deadline=None)
    SENT = lease(age=500, redeemed=False)

    def test_waits_however_long_the_agent_is_silent(self) -> None:
        silent = agent(self.SENT, beat=200, silent=True)
        expected = RepairRun(Repair.PAUSE_DEADLINE, self.APPLYING, self.SENT)
        assert actions(runs=[self.APPLYING], agents=[silent], pods=[pod()]) == [expected]
        assert actions(runs=[self.PAUSED], agents=[silent], pods=[pod()]) == []

    def test_is_sent_again_when_the_agent_is_heard_and_has_its_full_time_from_then_on(self) -> None:
        assert ordered(self.PAUSED, self.SENT) == [
            RepairRun(Repair.RESUME_DEADLINE, self.PAUSED, self.SENT),
            RepairRun(Repair.RESEND_ORDER, self.PAUSED, self.SENT),
        ]
        counted = replace(self.APPLYING, changed_at=NOW - 20)
        assert ordered(counted, self.SENT) == [RepairRun(Repair.RESEND_ORDER, counted, self.SENT)]
        counted = replace(self.APPLYING, changed_at=NOW - 61)
        assert ordered(counted, self.SENT) == [RepairRun(Repair.REVOKE_ORDER, counted, self.SENT)]

    def test_has_a_deadline_again_though_it_was_redeemed_before_the_next_heartbeat(self) -> None:
        redeemed = replace(self.SENT, redeemed=True)
        assert ordered(self.PAUSED, redeemed) == [RepairRun(Repair.RESUME_DEADLINE, self.PAUSED, redeemed)]
        reported = replace(self.PAUSED, started=True)
        assert ordered(reported, self.SENT) == [RepairRun(Repair.RESUME_DEADLINE, reported, self.SENT)]

    def test_differs_from_a_plan_which_is_made_anew_elsewhere(self) -> None:
        silent = agent(self.SENT, beat=200, silent=True)
        planning = run(age=61)
        expected = RepairRun(Repair.REVOKE_ORDER, planning, self.SENT)
        assert actions(runs=[planning], agents=[silent], pods=[pod()]) == [expected]


def test_a_confirmation_that_stopped_half_way_is_reverted() -> None:
    waiting = run(status=RunStatus.APPLY_PENDING, confirm_until=NOW + 100)
    half = lease(age=11, redeemed=False, token="t2")
    expected = RepairRun(Repair.REVERT_CONFIRMATION, waiting, half)
    assert actions(runs=[waiting], agents=[agent(half)], pods=[pod()]) == [expected]


def test_a_plan_that_is_not_confirmed_in_time_expires() -> None:
    waiting = run(status=RunStatus.APPLY_PENDING, confirm_until=NOW - 1)
    held = lease(state=SlotState.RESERVED)
    assert actions(runs=[waiting], agents=[agent(held)], pods=[pod()]) == [RepairRun(Repair.EXPIRE, waiting, held)]


def test_a_lease_without_a_run_is_released_after_the_consistency_grace() -> None:
    """F13."""
    assert actions(agents=[agent(lease(age=5))], pods=[pod()]) == []
    assert actions(agents=[agent(lease(age=11))], pods=[pod()]) == [ReleaseLease(lease(age=11))]


def test_a_cancel_that_did_not_reach_the_slot_map_is_repeated() -> None:
    asked = run(cancel=CancelMode.INTERRUPT)
    (action,) = actions(runs=[asked], agents=[agent(lease())], pods=[pod()])
    assert action == CancelRun(asked, CancelMode.INTERRUPT, "its cancel was asked for")
    assert actions(runs=[asked], agents=[agent(lease(cancel=CancelMode.INTERRUPT))], pods=[pod()]) == []


def test_a_kill_that_did_not_reach_the_slot_map_follows_the_interrupt_that_did() -> None:
    forced = run(cancel=CancelMode.KILL)
    (action,) = actions(runs=[forced], agents=[agent(lease(cancel=CancelMode.INTERRUPT))], pods=[pod()])
    assert action == CancelRun(forced, CancelMode.KILL, "its cancel was asked for")
    milder = run(cancel=CancelMode.INTERRUPT)
    assert actions(runs=[milder], agents=[agent(lease(cancel=CancelMode.KILL))], pods=[pod()]) == []


def test_a_plan_whose_cancel_came_while_it_was_reported_is_cancelled() -> None:
    waiting = run(status=RunStatus.APPLY_PENDING, confirm_until=NOW + 100, cancel=CancelMode.INTERRUPT)
    held = lease(state=SlotState.RESERVED, cancel=CancelMode.INTERRUPT)
    (action,) = actions(runs=[waiting], agents=[agent(held)], pods=[pod()])
    assert isinstance(action, CancelRun)


def test_a_phase_that_its_agent_did_not_end_in_time_is_killed() -> None:
    late = run(deadline=NOW - 161)
    (action,) = actions(runs=[late], agents=[agent(lease())], pods=[pod()])
    assert isinstance(action, CancelRun)
    assert action.mode is CancelMode.KILL
    assert actions(runs=[run(deadline=NOW - 159)], agents=[agent(lease())], pods=[pod()]) == []


HELD = [
    lease(age=20),
    lease(age=20, redeemed=False),
    lease(age=70, redeemed=False),
    lease(age=20, lost_since=NOW - 15),
    lease(age=20, state=SlotState.RESERVED, until=NOW + 20),
    lease("another", age=20),
]


@st.composite
def some_views(draw: st.DrawFn) -> Views:
    age, beat = draw(st.sampled_from([1.0, 20.0, 70.0, 290.0, 400.0])), draw(st.sampled_from([1.0, 40.0, 290.0, 400.0]))
    due = NOW + draw(st.sampled_from([-200.0, -1.0, 20.0]))
    status = draw(st.sampled_from([RunStatus.PLANNING, RunStatus.APPLY_PENDING, RunStatus.APPLYING]))
    runs = [run(status=status, age=age, deadline=due, confirm_until=due)]
    agents = [agent(draw(st.sampled_from(HELD)), beat=beat), agent(name="b", beat=beat)]
    watched = draw(st.sampled_from([5.0, 100.0, 10_000.0]))
    return Views(runs, agents, [pod(name, age=age) for name in "abc"], NOW - watched, NOW, NOW)


@given(some_views(), st.floats(-600, 600), st.floats(-600, 600))
def test_clocks_that_disagree_change_no_decision(views: Views, redis: float, control_plane: float) -> None:
    """A Redis that is minutes ahead of the control plane or of the cluster, or behind, ends no pod and no run."""
    apart = replace(
        views,
        runs=[_moved(each, control_plane) for each in views.runs],
        agents=[
            _moved(each, redis, leases=tuple(_moved(lease, redis) for lease in each.leases)) for each in views.agents
        ],
        watched_since=views.watched_since + redis,
        map_now=views.map_now + redis,
        runs_now=views.runs_now + control_plane,
    )
    assert [_what(action) for action in reconcile(apart, SPEC)] == [_what(action) for action in reconcile(views, SPEC)]


TIMES = ("changed_at", "deadline", "confirm_until", "heartbeat_at", "since", "lost_since")


def _moved(record: Any, seconds: float, **more: Any) -> Any:
    times = {name: getattr(record, name, None) for name in TIMES}
    return replace(record, **{name: time + seconds for name, time in times.items() if time is not None}, **more)


def _what(action: Action) -> tuple[object, ...]:
    return type(action), *(getattr(action, name, None) for name in ("repair", "reason", "pod", "agent"))
