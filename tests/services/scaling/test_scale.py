"""Scaling: which pods are created and deleted, and what is stored about it. The scenarios of S22, by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from tests.services.conftest import ControlPlane, HandAgent
from workers.core.lifecycle import RunStatus
from workers.core.pods import Pod, PodPhase
from workers.core.pools import PoolLimits
from workers.protocol import names
from workers.protocol.errors import Unavailable
from workers.protocol.kinds import RunKind
from workers.services.pool_state import PodSnapshot
from workers.services.pools import drain
from workers.services.pools import manage as pools
from workers.services.runs import decide
from workers.services.scaling import scale
from workers.services.scaling.cycle import cycle, cycles, scale_for_waiting
from workers.slots.slot_map import SlotMap
from workers.specs.pools import PoolSpec
from workers.store import decisions

PLAN = RunKind.PLAN
Clock = Callable[[float], None]


def test_scale_down_protection_three_pods_with_a_run_each_scaled_to_two_kills_none(control: ControlPlane) -> None:
    """S22, F1."""
    for number in range(3):
        control.workspace(f"net{number}")
        control.agent(f"default-{number}")
        control.submit(workspace=f"net{number}")
    assert control.slots.stats().running == 3
    assert scale.scale_pods(control.system, control.spec(), 2) == 0
    assert control.pods.deleted == []
    assert len(control.pods.pods) == 3


def test_reserved_protection_a_pod_that_keeps_a_plan_stays_and_applies_it(control: ControlPlane) -> None:
    """S22."""
    control.workspace()
    keeper = control.agent("default-1")
    run = control.submit()
    keeper.work()
    for number in (2, 3):
        control.agent(f"default-{number}")
    assert scale.scale_pods(control.system, control.spec(), 0) == -2
    assert list(control.pods.pods) == ["default-1"]
    decide.confirm(control.system, run.id)
    keeper.work()
    over = control.run(run.id)
    assert (over.status, over.agent) == (RunStatus.SUCCEEDED, "default-1")


def test_utilisation_three_plans_on_one_pod_add_one_and_none_removes_one_after_the_other(
    control: ControlPlane,
) -> None:
    """S22."""
    control.workspace()
    agent = control.agent("default-1")
    submitted = [control.submit(PLAN) for _ in range(3)]
    assert control.slots.stats().used == 3
    assert scale.autoscale_pods(control.system, control.spec()) == (2, True)
    (name,) = set(control.pods.pods) - {"default-1"}
    HandAgent(control, name).register()
    for order in agent.orders():
        agent.start(order)
        agent.finish(order)
    assert all(control.run(run.id).status is RunStatus.SUCCEEDED for run in submitted)
    for left in (1, 0):
        assert scale.autoscale_pods(control.system, control.spec()) == (left, True)
        gone = control.pods.deleted[-1]
        control.slots.deregister(gone)
        assert len(control.pods.pods) == left


def test_a_cold_start_creates_a_pod_at_once_and_only_one(control: ControlPlane) -> None:
    control.workspace()
    control.submit()
    for _ in range(3):
        assert cycle(control.system, "default")
    assert len(control.pods.pods) == 1


def test_submissions_to_an_empty_pool_enqueue_one_cycle_at_once(control: ControlPlane) -> None:
    control.workspace()
    for _ in range(5):
        control.submit(PLAN)
    assert control.redis.llen("terraslot.cluster") == 1


def test_a_starting_pod_is_never_deleted(control: ControlPlane) -> None:
    """F2."""
    control.pods.create(control.spec(), "default-starting")
    assert scale.scale_pods(control.system, control.spec(), 0) == 0
    assert list(control.pods.pods) == ["default-starting"]


def test_the_claim_of_a_pod_that_can_not_be_deleted_is_given_back(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    control.agent()

    def unreachable(*_: object, **__: object) -> bool:
        raise Unavailable("The cluster does not answer.")

    monkeypatch.setattr(control.pods, "delete", unreachable)
    assert scale.scale_pods(control.system, control.spec(), 0) == 0
    record = control.slots.agent("default-1")
    assert record is not None
    assert record.available


def test_a_removal_that_died_half_way_is_finished_by_the_next_cycle(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    control.workspace()
    control.agent()

    def die(*_: object, **__: object) -> bool:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(control.pods, "delete", die)
        with pytest.raises(SystemExit):
            scale.scale_pods(control.system, control.spec(), 0)
    assert control.submit(PLAN).status is RunStatus.PENDING, "no run is given a slot of it"
    cycle(control.system, "default")
    assert control.pods.deleted == ["default-1"]


def test_a_removal_that_only_stalled_gives_nothing_back_once_another_has_taken_it_over(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the agent would be given a run while its pod is being deleted (F1)."""
    control.agent()
    control.pods.keep_deleting = True
    delete = control.pods.delete

    def stall(*_: object, **__: object) -> bool:
        monkeypatch.setattr(control.pods, "delete", delete)
        cycle(control.system, "default")
        raise Unavailable("The cluster did not answer in time.")

    monkeypatch.setattr(control.pods, "delete", stall)
    assert scale.scale_pods(control.system, control.spec(), 0) == 0
    assert control.pods.deleted == ["default-1"]
    record = control.slots.agent("default-1")
    assert record is not None
    assert not record.available


def patient(control: ControlPlane) -> None:
    """Let idle agents of the pool stay for an hour."""
    spec = control.spec()
    pools.update(
        control.system, spec.model_copy(update={"limits": spec.limits.model_copy(update={"idle_timeout": 3600})})
    )


def test_idle_pods_of_an_earlier_configuration_are_removed_once_a_new_one_works(control: ControlPlane) -> None:
    patient(control)
    control.workspace()
    control.pods.made_from = "earlier"
    worker = control.agent("default-1")
    order = control.submit() and worker.order()
    worker.start(order)
    control.agent("default-2")
    control.pods.made_from = "now"
    cycle(control.system, "default")
    (newer,) = control.pods.pods.keys() - {"default-1", "default-2"}
    cycle(control.system, "default")
    assert control.pods.deleted == [], "no pod of the new configuration works yet"
    HandAgent(control, newer).register()
    cycle(control.system, "default")
    assert control.pods.deleted == ["default-2"]
    cycle(control.system, "default")
    assert control.pods.pods.keys() == {"default-1", newer}, "a busy pod is kept"
    worker.finish(order, changed=False)
    cycle(control.system, "default")
    assert control.pods.pods.keys() == {newer}


def test_where_the_outdated_pod_has_just_been_given_a_run_no_other_is_removed(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient(control)
    control.workspace()
    for made_from in ("earlier", "now"):
        control.pods.made_from = made_from
        control.agent(made_from)
    claim_idle = SlotMap.claim_idle

    def too_late(slots: SlotMap, count: int, claim: str, among: Sequence[str] | None = None) -> list[str]:
        control.slots.drain("now")
        control.submit(PLAN)
        control.slots.undrain("now")
        return claim_idle(slots, count, claim, among)

    monkeypatch.setattr(SlotMap, "claim_idle", too_late)
    assert scale.autoscale_pods(control.system, control.spec()) == (1, False)
    assert control.pods.deleted == []


def test_scaling_down_removes_outdated_pods_first(control: ControlPlane) -> None:
    for number, made_from in enumerate(["now", "earlier", "now"]):
        control.pods.made_from = made_from
        control.agent(f"default-{number}")
    assert scale.scale_pods(control.system, control.spec(), 2) == -1
    assert control.pods.deleted == ["default-1"]


def test_a_claimed_agent_is_given_no_run(control: ControlPlane) -> None:
    """F1, F3."""
    control.workspace()
    control.agent()
    control.pods.keep_deleting = True
    assert scale.scale_pods(control.system, control.spec(), 0) == -1
    assert control.submit(PLAN).status is RunStatus.PENDING


def test_every_change_is_stored_with_its_facts_and_a_refusal_only_once(control: ControlPlane) -> None:
    """F6: it is visible that the maximum keeps the pool from growing."""
    pools.ensure(control.system, control.spec())
    control.workspace()
    for number in range(5):
        control.agent(f"default-{number}")
    for _ in range(16):
        control.submit(PLAN)
    for _ in range(3):
        scale.autoscale_pods(control.system, control.spec())
    with control.system.database.read() as session:
        stored = decisions.recent(session, "default", limit=10)
    (refusal,) = stored
    assert refusal.reason == "more plans wait than there are free slots: already at the maximum of 5"
    assert refusal.facts["pending_plans"] == 1


def test_a_pod_that_fails_to_start_is_replaced_after_a_back_off(control: ControlPlane, clock_ahead: Clock) -> None:
    """F6: no crash loop."""
    control.workspace()
    control.submit(PLAN)
    cycle(control.system, "default")
    (name,) = control.pods.pods
    broken = control.pods.pods[name]
    control.pods.pods[name] = Pod(
        name, broken.uid, "default", broken.age, PodPhase.FAILED, reason="exit code 2: no Redis"
    )
    cycle(control.system, "default")
    assert not control.pods.pods
    with control.system.database.read() as session:
        stored = decisions.recent(session, "default", limit=1)[0]
    assert stored.reason.startswith("pods failed to start lately")
    clock_ahead(11)
    cycle(control.system, "default")
    assert len(control.pods.pods) == 1


def test_a_pool_is_filled_up_to_its_minimum_and_counted(control: ControlPlane) -> None:
    spec = control.spec()
    spec = PoolSpec(name="warm", limits=spec.limits.model_copy(update={"min_agents": 2}))
    pools.ensure(control.system, spec)
    assert scale.ensure_pods_for_pool(control.system, spec) == 2
    assert scale.ensure_pods_for_pool(control.system, spec) == 0
    assert scale.get_pod_count(control.system, spec).current == 2


def asked(control: ControlPlane) -> list[float]:
    """Take the messages that ask for more agents; return in how many seconds each is due."""
    due = []
    while (message := control.redis.rpop(names.CLUSTER_QUEUE)) is not None:
        headers = json.loads(message)["headers"]
        if headers["task"] == names.SCALE:
            due.append((datetime.fromisoformat(headers["eta"]) - control.system.now()).total_seconds())
    return due


def test_runs_that_find_no_slot_ask_once_and_one_look_adds_what_they_need(control: ControlPlane) -> None:
    """S11: eight at once on one agent of three; the last has its agent one pod start after the first decision."""
    spec = control.spec()
    pools.update(control.system, spec.model_copy(update={"limits": PoolLimits(max_agents=3)}))
    for number in range(8):
        control.workspace(f"net{number}")
    control.agent()
    asked(control)
    for number in range(8):
        control.submit(workspace=f"net{number}")
    (due,) = asked(control)
    assert 0 < due < 0.5
    assert scale_for_waiting(control.system, "default")
    assert len(control.pods.pods) == 3

    control.submit(PLAN, "net0")
    control.workspace("late")
    control.submit(workspace="late")
    (due,) = asked(control)
    assert 0.5 < due < 1.5, "a pool is looked at once a second at most"
    assert not scale_for_waiting(control.system, "default"), "its pods start"
    assert len(control.pods.pods) == 3


def test_a_run_that_waits_for_no_agent_asks_for_none(control: ControlPlane) -> None:
    control.workspace()
    control.agent()
    control.submit()
    asked(control)
    control.slots.release("run-1", control.run("run-1").token or "")
    control.submit()
    assert control.run("run-2").status is RunStatus.PENDING, "its workspace is busy"
    assert asked(control) == []


def test_a_run_behind_one_that_got_the_last_slot_asks_for_an_agent(control: ControlPlane) -> None:
    for number in range(2):
        control.workspace(f"net{number}")
    control.submit(workspace="net0")
    asked(control)
    control.system.wake_up("default", "scale").received()
    control.slots.register("default-1", "life-1")
    control.submit(workspace="net1")
    assert [control.run(f"run-{number}").status for number in (1, 2)] == [RunStatus.PLANNING, RunStatus.PENDING]
    assert len(asked(control)) == 1


def test_what_drains_is_no_reason_to_look_at_the_cluster(control: ControlPlane) -> None:
    control.workspace()
    leaving = control.agent()
    for _ in range(3):
        control.submit(PLAN)
    control.slots.drain(leaving.name)
    control.agent("default-2")
    control.pods.broken = True
    assert control.slots.stats().running == 3
    assert not scale_for_waiting(control.system, "default")


@pytest.mark.parametrize("hindrance", ["it drains", "pods failed to start lately"])
def test_a_look_costs_no_call_of_the_cluster_where_no_agent_can_be_added(control: ControlPlane, hindrance: str) -> None:
    control.workspace()
    control.submit(PLAN)
    if hindrance == "it drains":
        drain.drain_pool(control.system, "default")
    else:
        with control.system.database.begin() as session:
            decisions.record_pod_failure(session, "default", control.system.now(), "", "no room")
    control.pods.broken = True
    assert not scale_for_waiting(control.system, "default")


def test_a_look_that_a_cycle_leaves_undone_is_asked_for_again(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    control.workspace()
    control.submit(PLAN)
    control.system.wake_up("default", "scale").received()
    asked(control)
    autoscale = scale.autoscale

    def meanwhile(snapshot: PodSnapshot) -> scale.Autoscaled:
        assert not control.system.lock("default", "cycle").request("a look")
        return autoscale(snapshot)

    monkeypatch.setattr("workers.services.scaling.cycle.autoscale", meanwhile)
    assert cycle(control.system, "default")
    assert len(asked(control)) == 1


def test_two_cycles_at_once_are_one(control: ControlPlane) -> None:
    """F5, F28."""
    lock = control.system.lock("default", "cycle")
    assert lock.request("another process", ttl=30)
    assert not cycle(control.system, "default")
    assert not lock.finish("another process", ttl=30)  # the request has set the rerun flag


def test_an_error_in_one_pool_stops_no_other(control: ControlPlane) -> None:
    """S10: each pool's cycle is a task of its own."""
    pools.ensure(control.system, PoolSpec(name="other"))
    assert cycles(control.system) == ["default", "other"]
    assert control.redis.llen("terraslot.cluster") == 3  # one for the pods of deleted pools


def test_cycles_of_many_pools_do_not_begin_at_one_moment(control: ControlPlane) -> None:
    for number in range(15):
        pools.ensure(control.system, PoolSpec(name=f"pool-{number:02}"))
    began = datetime.now(UTC)
    assert len(cycles(control.system)) == 16
    messages = [json.loads(each)["headers"] for each in control.redis.lrange("terraslot.cluster", 0, -1)]
    etas = [each["eta"] for each in messages if each["task"] == "terraslot.cycle"]
    waits = sorted((datetime.fromisoformat(eta) - began).total_seconds() if eta else 0.0 for eta in etas)
    assert (waits[0], len(waits)) == (0, 16)
    assert all(later - earlier > 0.5 for earlier, later in pairwise(waits))
    assert waits[-1] < control.system.settings.cycle_seconds / 2 + 1
