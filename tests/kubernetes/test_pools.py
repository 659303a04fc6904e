"""Kubernetes pools through the pod manager, the autoscaler and reconcile: SEEDS S22 and the failures of others."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest

from tests.kubernetes.control import Clock, Cluster, another_process, kubernetes_pool
from tests.kubernetes.double.cluster import NAMESPACE
from tests.services.conftest import POOL, HandAgent
from tests.waiting import eventually
from workers.core.errors import PodRefused, StillInUse
from workers.core.lifecycle import RunStatus
from workers.protocol.errors import InvalidRequest, Unavailable
from workers.protocol.kinds import FailureReason, RunKind
from workers.services.pools import delete, shut_down
from workers.services.pools import manage as pools
from workers.services.runs import decide, waiting
from workers.services.scaling import scale
from workers.services.scaling.cycle import cycle, protect, sweep
from workers.services.system import System
from workers.slots.keys import PoolKeys
from workers.slots.redis_server import clock
from workers.slots.slot_map import SlotMap
from workers.store import pools as stored_pools
from workers.store import run_queries

PLAN = RunKind.PLAN


def busy(cluster: Cluster, count: int) -> None:
    """Give each of ``count`` pods a run that has started."""
    for number, agent in enumerate(cluster.start(count)):
        cluster.workspace(f"net{number}")
        cluster.submit(workspace=f"net{number}")
        del agent
    for agent in cluster.agents.values():
        assert agent.start(agent.order())


def deleting(cluster: Cluster, name: str) -> bool:
    return name not in cluster.double.pods() or "deletionTimestamp" in cluster.double.pod(name)["metadata"]


class TestScaling:
    def test_three_pods_with_a_run_each_scaled_to_two_kills_none(self, cluster: Cluster) -> None:
        """S22, F1."""
        busy(cluster, 3)
        assert scale.scale_pods(cluster.system, cluster.spec(), 2) == 0
        assert len(cluster.running()) == 3
        assert ("delete", "pods") not in cluster.requests()

    def test_a_pod_that_keeps_a_plan_stays_and_applies_it(self, cluster: Cluster) -> None:
        """S22."""
        cluster.workspace()
        (keeper,) = cluster.start(1)
        run = cluster.submit()
        keeper.work()
        backend = cluster.system.pods(cluster.spec())
        backend.create_all(cluster.spec(), ["default-8", "default-9"])
        cluster.register()
        assert scale.scale_pods(cluster.system, cluster.spec(), 0) == -2
        eventually(lambda: cluster.double.pods() == [keeper.name])
        decide.confirm(cluster.system, run.id)
        keeper.work()
        assert cluster.run(run.id).status is RunStatus.SUCCEEDED

    def test_three_plans_on_one_pod_add_one_and_none_removes_one_after_the_other(self, cluster: Cluster) -> None:
        """S22."""
        cluster.workspace()
        (agent,) = cluster.start(1)
        for _ in range(3):
            cluster.submit(PLAN)
        cluster.cycle()
        assert len(cluster.register()) == 1
        for order in agent.orders():
            agent.start(order)
            agent.finish(order)
        for left in (1, 0):
            cluster.cycle()
            eventually(lambda left=left: len(cluster.double.pods()) == left)

    def test_a_starting_pod_is_never_a_victim(self, cluster: Cluster) -> None:
        """F2."""
        cluster.double.machinery.missing_images.add("agent:1")
        cluster.system.pods(cluster.spec()).create(cluster.spec(), "default-1")
        assert scale.scale_pods(cluster.system, cluster.spec(), 0) == 0
        assert cluster.double.pods() == ["default-1"]

    def test_a_cold_start_creates_one_pod_however_many_cycles_run(self, cluster: Cluster) -> None:
        """F5: a pod that starts is counted."""
        cluster.workspace()
        cluster.submit()
        for _ in range(3):
            cluster.cycle()
        assert len(cluster.double.pods()) == 1

    def test_another_pod_of_the_name_is_not_the_victim(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        """F1: between the look and the deletion the pod was replaced."""
        (agent,) = cluster.start(1)
        real = type(cluster.slots).claim_idle

        def replaced(slots: Any, count: int, claim: str, among: Any = None) -> list[str]:
            claimed = real(slots, count, claim, among)
            cluster.double.vanish(agent.name)
            cluster.system.pods(cluster.spec()).create(cluster.spec(), agent.name)
            return claimed

        monkeypatch.setattr(type(cluster.slots), "claim_idle", replaced)
        scale.scale_pods(cluster.system, cluster.spec(), 0)
        assert not deleting(cluster, agent.name)

    def test_a_changed_image_reaches_idle_pods_one_after_the_other_and_no_busy_one(self, cluster: Cluster) -> None:
        cluster.workspace()
        cluster.configure(min_agents=3)
        cluster.start(3)
        busy = cluster.submit().agent
        spec = cluster.spec()
        assert spec.kubernetes is not None
        newer = spec.kubernetes.model_copy(update={"image": "agent:2"})
        pools.update(cluster.system, spec.model_copy(update={"kubernetes": newer}))

        def images() -> dict[str, str]:
            before = len(cluster.running())
            cluster.cycle()
            assert abs(len([name for name in cluster.double.pods() if not deleting(cluster, name)]) - before) <= 1
            cluster.register()
            return {name: cluster.double.pod(name)["spec"]["containers"][0]["image"] for name in cluster.running()}

        eventually(lambda: sorted(images().values()) == ["agent:1", "agent:2", "agent:2"])
        assert images()[str(busy)] == "agent:1"

    def test_what_could_not_be_deleted_is_given_back(self, cluster: Cluster) -> None:
        (agent,) = cluster.start(1)
        cluster.double.fail("delete", status=500, reason="InternalError", message="no leader")
        assert scale.scale_pods(cluster.system, cluster.spec(), 0) == 0
        record = cluster.slots.agent(agent.name)
        assert record is not None
        assert record.available

    def test_an_agent_that_registered_after_the_list_is_given_back(
        self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its pod's uid is not known, and without one nothing is deleted."""
        real = type(cluster.slots).claim_idle

        def late(slots: Any, count: int, claim: str, among: Any = None) -> list[str]:
            cluster.system.pods(cluster.spec()).create(cluster.spec(), "default-late")
            HandAgent(cluster, "default-late").register()
            return real(slots, count, claim, among)

        cluster.start(1)
        cluster.submit(PLAN, cluster.workspace())
        monkeypatch.setattr(type(cluster.slots), "claim_idle", late)
        scale.scale_pods(cluster.system, cluster.spec(), 0)
        record = cluster.slots.agent("default-late")
        assert record is not None
        assert record.available

    def test_many_pods_at_once_fill_the_minimum(self, cluster: Cluster) -> None:
        cluster.configure(min_agents=30, max_agents=40)
        assert scale.ensure_pods_for_pool(cluster.system, cluster.spec()) == 30
        assert scale.ensure_pods_for_pool(cluster.system, cluster.spec()) == 0
        assert scale.get_pod_count(cluster.system, cluster.spec()).current == 30


class TestACycle:
    def test_lists_pods_once_where_nothing_changes(self, cluster: Cluster) -> None:
        """S20."""
        busy(cluster, 2)
        for _ in range(2):
            cluster.cycle()
        cluster.requests()
        cluster.cycle()
        assert Counter(cluster.requests()) <= Counter([("list", "pods"), ("list", "nodes"), ("get", "secrets")])

    def test_makes_one_more_request_for_each_change(self, cluster: Cluster) -> None:
        cluster.configure(min_agents=3)
        cluster.start(3)
        cluster.cycle()
        cluster.requests()
        cluster.double.fail_pod("default-0", "Evicted")
        cluster.cycle()
        asked = cluster.requests()
        assert {("delete", "pods"), ("create", "pods")} <= {*asked}
        steady = [("list", "pods"), ("list", "nodes"), ("get", "secrets")]
        assert Counter(asked) <= Counter([*steady, ("delete", "pods"), ("create", "pods")])

    def test_runs_once_where_two_begin_at_once(self, cluster: Cluster) -> None:
        """F28, F5: two beats."""
        cluster.workspace()
        cluster.submit()
        other = another_process(cluster)
        threads = [threading.Thread(target=cycle, args=(each.system, POOL)) for each in (cluster, other) * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(cluster.double.pods()) == 1

    def test_of_another_process_finds_everything_in_the_stores(self, cluster: Cluster) -> None:
        """F25: a restarted control plane adopts pods and runs as they are."""
        busy(cluster, 2)
        assert cycle(another_process(cluster).system, POOL)
        assert len(cluster.running()) == 2
        for agent in cluster.agents.values():
            record = cluster.slots.agent(agent.name)
            assert record is not None
            assert record.leases

    def test_adopts_a_pod_without_a_record_of_its_creation(self, cluster: Cluster) -> None:
        cluster.workspace()
        cluster.system.pods(cluster.spec()).create(cluster.spec(), "default-found")
        cluster.submit(PLAN)
        cluster.cycle()
        assert cluster.double.pods() == ["default-found"]
        (agent,) = cluster.register()
        agent.work()
        assert cluster.run("run-1").status is RunStatus.SUCCEEDED


class TestAView:
    @pytest.mark.parametrize(
        "fault",
        [
            {"status": 500, "reason": "InternalError", "message": "no leader"},
            {"status": 403, "reason": "Forbidden", "message": 'User "x" cannot list resource "pods" in API group ""'},
            {"status": 429, "reason": "TooManyRequests", "message": "later"},
            {"cut": True},
            {"status": 200, "body": b"<html>"},
        ],
    )
    def test_that_fails_changes_nothing_and_is_told(self, cluster: Cluster, fault: dict[str, Any]) -> None:
        """F24, F8."""
        busy(cluster, 2)
        cluster.double.fail("list", **fault)
        with pytest.raises(Unavailable):
            cycle(cluster.system, POOL)
        assert len(cluster.running()) == 2
        assert cluster.slots.stats().running == 2
        assert cluster.status()
        cluster.cycle()
        assert cluster.status() is None

    def test_that_fails_in_one_pool_stops_no_other(self, cluster: Cluster) -> None:
        """S10."""
        pools.ensure(cluster.system, kubernetes_pool("other", min_agents=1))
        cluster.double.fail("list", status=500, reason="InternalError", message="no leader")
        with pytest.raises(Unavailable):
            cycle(cluster.system, POOL)
        assert cycle(cluster.system, "other")
        assert len(cluster.double.pods()) == 1

    def test_of_an_emptied_redis_ends_no_run(self, cluster: Cluster, clock_ahead: Clock) -> None:
        """F8."""
        busy(cluster, 2)
        held = [cluster.slots.find(f"run-{number}") for number in (1, 2)]
        cluster.redis.flushall()
        cluster.cycle()
        assert [cluster.run(f"run-{number}").status for number in (1, 2)] == [RunStatus.PLANNING] * 2
        assert len(cluster.running()) == 2
        for lease in held:
            assert lease is not None
            cluster.slots.register(lease.agent, "instance-1", [lease])
        clock_ahead(15)
        for agent, lease in zip(cluster.agents.values(), held, strict=True):
            assert lease is not None
            cluster.slots.heartbeat(agent.name, agent.instance_id, [lease.token], [])
        cluster.cycle()
        assert cluster.slots.stats().running == 2


@pytest.mark.parametrize("ahead", [400.0, -400.0])
@pytest.mark.parametrize("whose", ["the cluster's", "Redis's"])
def test_a_clock_that_disagrees_ends_no_pod_and_creates_none(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, whose: str, ahead: float
) -> None:
    """Each time is compared with the clock that it comes from: neither a starting nor a working pod looks old."""
    if whose == "Redis's":
        redis_time = lambda: clock(cluster.redis) + ahead  # noqa: E731 - what the slot map takes for its server's
        monkeypatch.setattr(System, "slots", lambda self, pool: SlotMap(self.redis, pool, clock=redis_time))
    else:
        cluster.double.objects.ahead = ahead
    now = cluster.slots.watched()[0]
    cluster.redis.set(PoolKeys(POOL).watch, f"{now - 9_000} {now}")
    busy(cluster, 1)
    cluster.double.machinery.missing_images.add("agent:1")
    cluster.system.pods(cluster.spec()).create(cluster.spec(), "default-9")
    cluster.workspace("more")
    cluster.submit(PLAN, "more")
    for _ in range(2):
        cluster.cycle()
    assert cluster.double.pods() == ["default-0", "default-9"]
    assert not deleting(cluster, "default-9")
    assert cluster.run("run-1").status is RunStatus.PLANNING


class TestAPod:
    def test_that_never_registers_is_replaced_after_its_deadline_with_the_reason(
        self, cluster: Cluster, clock_ahead: Clock
    ) -> None:
        """F4, F16."""
        cluster.workspace()
        cluster.double.machinery.missing_images.add("agent:1")
        cluster.submit(PLAN)
        cluster.cycle()
        (name,) = cluster.double.pods()
        assert cluster.running() == []
        cluster.cycle()
        assert cluster.status() == f'the pod {name} waits: ImagePullBackOff: Back-off pulling image "agent:1"'
        for seconds in (50, 100, 150, 200, 250, 290):
            clock_ahead(seconds)
            cluster.cycle()
        assert cluster.double.pods() == [name]
        clock_ahead(302)
        cluster.cycle()
        assert deleting(cluster, name)
        assert "did not register within 300 s (ImagePullBackOff" in (cluster.status() or "")
        eventually(lambda: cluster.double.pods() == [])
        cluster.cycle()
        assert cluster.double.pods() == []  # F6: creation backs off
        cluster.double.machinery.missing_images.clear()
        clock_ahead(320)
        cluster.cycle()
        assert len(cluster.register()) == 1

    def test_that_can_not_mount_a_volume_says_so_until_another_has_started(
        self, cluster: Cluster, clock_ahead: Clock
    ) -> None:
        """Its own status has no reason: the cause is an event, and the next try says nothing of it at first."""
        cluster.workspace()
        spec = cluster.spec()
        assert spec.kubernetes is not None
        volume = {"name": "ca", "secret": {"secretName": "our-ca"}}
        more = spec.kubernetes.model_copy(update={"volumes": (volume,)})
        pools.update(cluster.system, spec.model_copy(update={"kubernetes": more}))
        run = cluster.submit(PLAN)
        cluster.cycle()
        (name,) = cluster.double.pods()
        eventually(lambda: cluster.double.objects.all("events", NAMESPACE))
        (container,) = cluster.double.pod(name)["status"]["containerStatuses"]
        assert container["state"] == {"waiting": {"reason": "ContainerCreating"}}
        cause = 'FailedMount: MountVolume.SetUp failed for volume "ca" : secret "our-ca" not found'
        clock_ahead(12)
        cluster.cycle()
        assert cluster.status() == f"the pod {name} waits: {cause}"

        for seconds in (60, 110, 160, 210, 260, 302):
            clock_ahead(seconds)
            cluster.cycle()
        eventually(lambda: cluster.double.pods() == [])
        clock_ahead(315)
        cluster.cycle()
        assert len(cluster.double.pods()) == 1
        said = f"no pod has started since {name} failed to: it did not register within 300 s ({cause})"
        assert cluster.status() == said
        assert said in waiting.reasons(cluster.system, (run.id,))[run.id]

        cluster.double.put("secrets", "our-ca")
        eventually(cluster.running)
        cluster.register()
        cluster.cycle()
        assert cluster.status() is None

    def test_whose_events_can_not_be_read_is_shown_without_a_reason(self, cluster: Cluster, clock_ahead: Clock) -> None:
        cluster.system.pods(cluster.spec()).delete_secret(cluster.spec())
        cluster.system.pods(cluster.spec()).create(cluster.spec(), "default-1")
        eventually(lambda: cluster.double.objects.all("events", NAMESPACE))
        clock_ahead(12)
        said = 'User "x" cannot list resource "events" in API group ""'
        cluster.double.fail("list", "events", status=403, reason="Forbidden", message=said)
        cluster.cycle()
        assert cluster.status() is None

    def test_that_can_not_be_scheduled_says_so_in_the_status(self, cluster: Cluster) -> None:
        spec = cluster.spec()
        assert spec.kubernetes is not None
        picky = spec.kubernetes.model_copy(update={"node_selector": {"disk": "gold"}})
        cluster.system.pods(spec).create(spec.model_copy(update={"kubernetes": picky}), "default-1")
        eventually(lambda: cluster.double.pod("default-1")["status"].get("conditions"))
        cluster.cycle()
        assert "the pod default-1 waits: Unschedulable: 0/1 nodes" in (cluster.status() or "")

    @pytest.mark.parametrize("reason", ["Evicted", "Preempted", "NodeShutdown", ""])
    def test_that_failed_is_removed_and_its_run_planned_anew_at_once(self, cluster: Cluster, reason: str) -> None:
        """F7."""
        busy(cluster, 1)
        cluster.double.fail_pod("default-0", reason)
        cluster.cycle()
        assert "default-0" not in cluster.double.pods()
        assert cluster.run("run-1").status is RunStatus.PENDING
        with cluster.system.database.read() as session:
            (lost,) = (each.detail for each in run_queries.events(session, "run-1") if each.event == "agent_lost")
        assert lost == {"why": f"its agent default-0 is gone (its pod was deleted: {reason or 'it has failed'})"}

    def test_that_ran_out_of_memory_and_restarts_loses_what_it_executed_and_says_why(
        self, cluster: Cluster, clock_ahead: Clock
    ) -> None:
        """F9: the apply may have changed things, so it is not repeated."""
        cluster.workspace()
        (agent,) = cluster.start(1)
        run = cluster.submit()
        agent.work()
        decide.confirm(cluster.system, run.id)
        assert agent.start(agent.order())
        cluster.double.machinery.container(agent.name).code = 137
        eventually(lambda: cluster.double.pod(agent.name)["status"]["containerStatuses"][0]["restartCount"] == 1)
        restarted = HandAgent(cluster, agent.name, "instance-2").register()
        for seconds in (0, 11):
            clock_ahead(seconds)
            cluster.slots.heartbeat(restarted.name, restarted.instance_id, [], [])
        cluster.cycle()
        lost = cluster.run(run.id)
        assert lost.reason is FailureReason.AGENT_LOST
        assert "restarted once; Error (exit code 137)" in (lost.error or "")

    def test_that_vanished_has_its_run_planned_anew(self, cluster: Cluster) -> None:
        """F7: its node is gone."""
        busy(cluster, 2)
        lost = cluster.run("run-1").agent or ""
        cluster.double.vanish(lost)
        cluster.cycle()
        assert cluster.run("run-1").status is RunStatus.PENDING
        assert cluster.slots.agent(lost) is None

    def test_that_was_the_only_one_is_gone_once_its_agent_is_silent(self, cluster: Cluster, clock_ahead: Clock) -> None:
        """F24: an empty list beside a live agent means that the wrong place was asked."""
        busy(cluster, 1)
        cluster.double.vanish("default-0")
        with pytest.raises(Unavailable, match=r"its agents are heard: check TERRASLOT_NAMESPACE"):
            cycle(cluster.system, POOL)
        assert cluster.run("run-1").status is RunStatus.PLANNING
        clock_ahead(6)
        cluster.cycle()
        assert cluster.run("run-1").status is RunStatus.PENDING

    def test_on_a_node_that_does_not_answer_keeps_its_run_until_it_is_gone(
        self, cluster: Cluster, clock_ahead: Clock
    ) -> None:
        """F12, F31: the agent is silent, its pod listed, and its terraform may still write."""
        busy(cluster, 1)
        cluster.double.machinery.silent = True
        for seconds in range(0, 30, 4):
            clock_ahead(seconds)
            cluster.cycle()
        assert deleting(cluster, "default-0")
        assert "default-0" in cluster.double.pods()
        assert cluster.run("run-1").status is RunStatus.PLANNING
        cluster.double.vanish("default-0")
        cluster.cycle()
        assert cluster.run("run-1").status is RunStatus.PENDING

    def test_that_is_deleted_by_another_gets_no_more_runs_and_keeps_its_own(self, cluster: Cluster) -> None:
        """F3: a node is drained."""
        busy(cluster, 1)
        cluster.double.machinery.container("default-0").stubborn = True
        cluster.double.server.api.delete("pods", NAMESPACE, "default-0", {})
        cluster.cycle()
        assert cluster.run("run-1").status is RunStatus.PLANNING
        record = cluster.slots.agent("default-0")
        assert record is not None
        assert record.draining
        assert cluster.submit(PLAN, "net0").status is RunStatus.PENDING

    def test_that_succeeds_while_it_ends_has_not_failed(self, cluster: Cluster) -> None:
        """deletionTimestamp first, phase second: what ends because it was told to is no failure to start."""
        (agent,) = cluster.start(1)
        cluster.double.server.api.delete("pods", NAMESPACE, agent.name, {"gracePeriodSeconds": 60})
        eventually(lambda: cluster.double.pods() == [])
        cluster.cycle()
        assert cluster.status() is None


class TestAQuota:
    def test_holds_creation_back_and_is_told_until_there_is_room(self, cluster: Cluster, clock_ahead: Clock) -> None:
        """F6."""
        cluster.double.put("resourcequotas", "few", spec={"hard": {"pods": "0"}})
        cluster.workspace()
        cluster.submit(PLAN)
        cluster.cycle()
        assert "exceeded quota: few" in (cluster.status() or "")
        cluster.requests()
        for _ in range(5):
            cluster.cycle()
        assert ("create", "pods") not in cluster.requests()
        assert "exceeded quota: few" in (cluster.status() or "")
        cluster.double.objects.remove("resourcequotas", NAMESPACE, "few")
        clock_ahead(11)
        cluster.cycle()
        assert len(cluster.double.pods()) == 1
        assert cluster.status() is None

    def test_that_leaves_room_for_some_gives_some(self, cluster: Cluster) -> None:
        cluster.double.put("resourcequotas", "few", spec={"hard": {"pods": "2"}})
        cluster.configure(min_agents=5)
        cluster.cycle()
        assert len(cluster.double.pods()) == 2
        assert "exceeded quota" in (cluster.status() or "")


class TestWhatThePoolMayNotHave:
    @pytest.mark.parametrize(
        ("fault", "said"),
        [
            ({"status": 422, "reason": "Invalid", "message": "spec.x: Invalid value"}, "spec.x: Invalid value"),
            (
                {
                    "status": 403,
                    "reason": "Forbidden",
                    "message": 'User "x" cannot create resource "pods" in API group ""',
                },
                "no permission to create pods in the namespace terraslot",
            ),
            ({"status": 404, "reason": "NotFound", "message": 'namespaces "terraslot" not found'}, "does not exist"),
        ],
    )
    def test_is_told_in_its_status_and_creation_backs_off(
        self, cluster: Cluster, fault: dict[str, Any], said: str
    ) -> None:
        cluster.configure(min_agents=1)
        cluster.double.fail("create", times=100, **fault)
        for _ in range(4):
            cluster.cycle()
        assert cluster.requests().count(("create", "pods")) <= 1
        assert said in (cluster.status() or "")


class TestSafeToEvict:
    """F30."""

    def not_evictable(self, cluster: Cluster) -> list[str]:
        return [pod.name for pod in cluster.system.pods(cluster.spec()).list(POOL) if not pod.safe_to_evict]

    def test_is_false_while_a_slot_is_running_or_reserved(self, cluster: Cluster) -> None:
        cluster.workspace()
        first, _ = cluster.start(2)
        run = cluster.submit()
        (agent,) = (each for each in cluster.agents.values() if cluster.run(run.id).agent == each.name)
        assert protect(cluster.system, POOL, agent.name, run.id)
        assert self.not_evictable(cluster) == [agent.name]
        agent.work()
        cluster.configure(min_agents=2)
        cluster.cycle()
        assert self.not_evictable(cluster) == [agent.name]
        decide.discard(cluster.system, run.id)
        cluster.cycle()
        assert self.not_evictable(cluster) == []
        assert first.name in cluster.double.pods()

    def test_is_set_by_a_task_that_is_sent_with_the_order(self, cluster: Cluster) -> None:
        cluster.workspace()
        cluster.start(1)
        cluster.submit(PLAN)
        assert b"terraslot.protect" in b"".join(cluster.redis.lrange("terraslot.cluster", 0, -1))

    def test_is_set_once_for_a_pod_and_not_for_each_of_its_runs(self, cluster: Cluster, clock_ahead: Clock) -> None:
        cluster.workspace()
        (agent,) = cluster.start(1)
        for seconds in (0, 2, 4):
            clock_ahead(seconds)
            cluster.submit(PLAN)
        cluster.requests()
        marked = [protect(cluster.system, POOL, agent.name, f"run-{number}") for number in (1, 2, 3)]
        assert marked == [True, False, False]
        assert cluster.requests() == [("patch", "pods")]

    def test_that_was_lost_is_repaired_by_the_next_cycle(self, cluster: Cluster) -> None:
        busy(cluster, 1)
        cluster.cycle()
        assert self.not_evictable(cluster) == ["default-0"]
        cluster.double.change("default-0", lambda pod: pod["metadata"].update(annotations={}))
        cluster.cycle()
        assert self.not_evictable(cluster) == ["default-0"]

    def test_of_a_pod_that_became_busy_while_it_was_set_to_true_is_false_again(
        self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cluster.workspace()
        (agent,) = cluster.start(1)
        cluster.submit(PLAN)
        cluster.cycle()
        agent.work()
        real = type(cluster.system.pods(cluster.spec())).set_safe_to_evict

        def race(backend: Any, changes: Any) -> Any:
            if changes[0].safe:
                cluster.submit(PLAN)
            return real(backend, changes)

        monkeypatch.setattr(type(cluster.system.pods(cluster.spec())), "set_safe_to_evict", race)
        cluster.configure(min_agents=1)
        cluster.cycle()
        assert self.not_evictable(cluster) == [agent.name]

    def test_that_can_not_be_set_does_not_stop_the_cycle(self, cluster: Cluster) -> None:
        busy(cluster, 1)
        cluster.double.fail("patch", status=500, reason="InternalError", message="no leader")
        cluster.cycle()
        assert self.not_evictable(cluster) == []
        cluster.cycle()
        assert self.not_evictable(cluster) == ["default-0"]

    def test_keeps_a_node_drain_away_from_busy_pods_only(self, cluster: Cluster) -> None:
        """A disruption budget over the label, as the chart has it; over bare pods it takes whole numbers only."""
        selector = {"matchLabels": {"terraslot.dev/busy": "true"}}
        cluster.double.put("poddisruptionbudgets", "busy", spec={"minAvailable": 100_000, "selector": selector})
        cluster.configure(min_agents=2)
        cluster.workspace()
        cluster.start(2)
        cluster.submit(PLAN)
        cluster.cycle()
        (taken,) = self.not_evictable(cluster)
        evict = cluster.double.server.api.evict
        with pytest.raises(Exception, match="disruption budget"):
            evict(NAMESPACE, taken, {})
        (idle,) = {*cluster.double.pods()} - {taken}
        evict(NAMESPACE, idle, {})
        assert deleting(cluster, idle)


class TestADeletedPool:
    def gone(self, cluster: Cluster) -> None:
        with cluster.system.database.begin() as session:
            stored_pools.delete(session, POOL)

    def test_leaves_no_pods_behind(self, cluster: Cluster) -> None:
        cluster.start(2)
        pools.ensure(cluster.system, kubernetes_pool("other"))
        cluster.system.pods(kubernetes_pool("other")).create(kubernetes_pool("other"), "other-1")
        self.gone(cluster)
        assert sweep(cluster.system) == 2
        eventually(lambda: cluster.double.pods() == ["other-1"])

    def test_takes_its_secret_with_it_when_its_pods_and_users_are_gone(self, cluster: Cluster) -> None:
        cluster.start(2)
        cluster.cycle()
        left: list[Any] = []

        def look() -> None:
            left.extend([*cluster.double.pods(), *(user for user in cluster.redis.acl_users() if "default-" in user)])

        cluster.double.fail("delete", "secrets", first=look)
        assert cluster.double.objects.all("secrets", NAMESPACE) != []
        assert delete.delete_pool(cluster.system, POOL) == 0
        assert cluster.double.objects.all("secrets", NAMESPACE) == []
        assert left == []

    def test_whose_secret_may_not_be_deleted_is_deleted(self, cluster: Cluster) -> None:
        """As before the Role of an older chart was replaced."""
        said = 'User "x" cannot delete resource "secrets" in API group ""'
        cluster.double.fail("delete", "secrets", status=403, reason="Forbidden", message=said)
        assert delete.delete_pool(cluster.system, POOL) == 0
        assert cluster.system.pool_names() == []

    def test_keeps_a_pod_as_long_as_it_holds_something(self, cluster: Cluster) -> None:
        """Nothing busy is killed, whatever was deleted."""
        (agent,) = cluster.start(1)
        lease = cluster.slots.acquire("run-x", PLAN, "t" * 16)
        assert lease is not None
        self.gone(cluster)
        assert sweep(cluster.system) == 0
        assert cluster.double.pods() == [agent.name]
        cluster.slots.release("run-x", lease.token)
        assert sweep(cluster.system) == 1

    def test_is_skipped_in_a_cluster_that_does_not_answer(self, cluster: Cluster) -> None:
        cluster.double.fail("list", status=500, reason="InternalError", message="no leader")
        assert sweep(cluster.system) == 0


class TestAPoolThatIsSaved:
    def test_is_tried_with_a_dry_run_first(self, cluster: Cluster) -> None:
        pools.create(cluster.system, kubernetes_pool("other"))
        assert cluster.status("other") is None
        assert cluster.double.pods() == []
        assert b"terraslot.cycle" in b"".join(cluster.redis.lrange("terraslot.cluster", 0, -1))

    def test_is_refused_where_its_cluster_refuses_its_pods(self, cluster: Cluster) -> None:
        spec = kubernetes_pool("other")
        assert spec.kubernetes is not None
        odd = spec.kubernetes.model_copy(update={"pod_template": {"spec": {"nodeSelecter": {}}}})
        with pytest.raises(PodRefused, match=r"spec\.nodeSelecter"):
            pools.create(cluster.system, spec.model_copy(update={"kubernetes": odd}))
        private = spec.kubernetes.model_copy(update={"image_pull_secrets": ("registry",)})
        with pytest.raises(InvalidRequest, match="no Secret 'registry'"):
            pools.create(cluster.system, spec.model_copy(update={"kubernetes": private}))
        assert cluster.system.pool_names() == [POOL]

    @pytest.mark.parametrize(
        ("fault", "said"),
        [
            ({"cut": True}, "did not answer"),
            (
                {"status": 403, "reason": "Forbidden", "message": 'User "x" cannot create resource "pods"'},
                "no permission to create pods",
            ),
            ({"status": 404, "reason": "NotFound", "message": 'namespaces "terraslot" not found'}, "does not exist"),
        ],
    )
    def test_says_in_its_status_what_can_not_be_checked_yet(
        self, cluster: Cluster, fault: dict[str, Any], said: str
    ) -> None:
        cluster.double.fail("create", **fault)
        pools.create(cluster.system, kubernetes_pool("other"))
        assert said in (cluster.status("other") or "")
        assert cycle(cluster.system, "other")
        assert cluster.status("other") is None

    def test_may_be_changed_and_is_tried_again(self, cluster: Cluster) -> None:
        spec = cluster.spec()
        larger = spec.model_copy(update={"limits": spec.limits.model_copy(update={"max_agents": 9})})
        pools.update(cluster.system, larger)
        assert cluster.spec().limits.max_agents == 9


class TestAClusterThatDoesNotAnswer:
    """A cycle ends, and lets go of its lock, however many pods there is something to do for."""

    def test_is_asked_for_a_few_deletions_of_idle_pods_and_all_claims_are_given_back(self, cluster: Cluster) -> None:
        cluster.configure(max_agents=20)
        cluster.start(12)
        cluster.requests()
        cluster.double.fail("delete", cut=True, times=100)
        assert scale.scale_pods(cluster.system, cluster.spec(), 0) == 0
        assert 1 <= cluster.requests().count(("delete", "pods")) <= 3
        assert cluster.slots.stats().available == 12

    def test_is_asked_for_a_few_deletions_of_failed_pods(self, cluster: Cluster) -> None:
        cluster.configure(min_agents=12, max_agents=20)
        for agent in cluster.start(12):
            cluster.double.fail_pod(agent.name, "Evicted")
        cluster.requests()
        cluster.double.fail("delete", cut=True, times=100)
        with pytest.raises(Unavailable):
            cycle(cluster.system, POOL)
        assert 1 <= cluster.requests().count(("delete", "pods")) <= 3
        assert "did not answer when asked to delete pods" in (cluster.status() or "")

    def test_is_asked_for_a_few_patches(self, cluster: Cluster) -> None:
        cluster.configure(min_agents=30, max_agents=40)
        busy(cluster, 30)
        cluster.requests()
        cluster.double.fail("patch", cut=True, times=100)
        cluster.cycle()
        assert cluster.requests().count(("patch", "pods")) <= 3 + 8


class TestShuttingDown:
    def test_is_refused_while_an_agent_works_and_ends_all_agents_when_none_does(self, cluster: Cluster) -> None:
        cluster.configure(min_agents=2)
        first, second = cluster.start(2)
        run = cluster.submit(workspace=cluster.workspace()).id
        working = cluster.agents[cluster.run(run).agent or ""]
        working.work()
        decide.confirm(cluster.system, run)

        with pytest.raises(StillInUse, match=r"Agents still hold runs: default \(1 slot\)"):
            shut_down.drain_all(cluster.system, timeout=0)
        cluster.cycle()
        assert sorted(cluster.running()) == sorted([first.name, second.name])

        working.work()
        assert cluster.run(run).status is RunStatus.SUCCEEDED
        shut_down.drain_all(cluster.system, timeout=0)
        eventually(lambda: cluster.double.pods() == [])
        cluster.cycle()
        assert cluster.double.pods() == [], "a pool that drains creates none, whatever its minimum"
