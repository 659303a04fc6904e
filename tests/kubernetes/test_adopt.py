"""S18: a pool that a Deployment runs becomes one of single pods, and goes back, and nothing busy is ended for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from kubernetes import client, config

from tests.chart.rendering import of_kind, render
from tests.kubernetes.control import Cluster
from tests.kubernetes.double.cluster import NAMESPACE
from tests.kubernetes.double.machinery import HASH
from tests.services.conftest import POOL, HandAgent
from tests.waiting import eventually
from workers.cluster.kubernetes.api import Api
from workers.cluster.kubernetes.backend import KubernetesPods
from workers.cluster.kubernetes.deployments import Deployments
from workers.core.errors import StillInUse
from workers.core.lifecycle import RunStatus
from workers.protocol.errors import InvalidRequest, TerraslotError, Unavailable
from workers.protocol.kinds import RunKind
from workers.services.pools import adopt, delete, drain, shut_down
from workers.services.pools.adopt import _adopt, adopt_deployment, return_to_deployment
from workers.services.runs import decide
from workers.services.scaling import scale
from workers.services.scaling.cycle import cycle
from workers.slots.keys import PoolKeys
from workers.slots.locks import LockLost
from workers.store import pools as stored

# Labels as charts set them; two of them are among those that our own pods have with other values.
LABELS = {
    "app.kubernetes.io/name": "agents",
    "app.kubernetes.io/instance": "old",
    "app.kubernetes.io/managed-by": "Helm",
}
OLD = "old-agents"


@pytest.fixture
def old(cluster: Cluster) -> Cluster:
    """Return a control plane whose pool a Deployment of three agents runs."""
    container = {"name": "agent", "image": "agent:0"}
    template = {"metadata": {"labels": LABELS}, "spec": {"containers": [container]}}
    selector = {"matchLabels": {key: LABELS[key] for key in ("app.kubernetes.io/name", "app.kubernetes.io/instance")}}
    cluster.double.put("deployments", OLD, spec={"replicas": 3, "selector": selector, "template": template})
    eventually(lambda: len(cluster.running()) == 3)
    return cluster


def uids(cluster: Cluster) -> dict[str, str]:
    return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in cluster.double.objects.all("pods", NAMESPACE)}


def busy(cluster: Cluster) -> list[str]:
    """Give every pod a run that has started; return the runs."""
    cluster.register()
    for number in range(len(cluster.agents)):
        cluster.submit(workspace=cluster.workspace(f"net{number}"))
    for agent in cluster.agents.values():
        assert agent.start(agent.order())
    return [f"run-{number + 1}" for number in range(len(cluster.agents))]


def owners(cluster: Cluster) -> list[Any]:
    return [pod["metadata"].get("ownerReferences") or None for pod in cluster.double.objects.all("pods", NAMESPACE)]


def staying(cluster: Cluster) -> dict[str, str]:
    """Return the pods that are not being deleted, and whose agents get runs; by name, their uids."""
    takes = {agent.name for agent in cluster.slots.snapshot() if not agent.draining}
    found = cluster.double.objects.all("pods", NAMESPACE)
    there = [pod["metadata"] for pod in found if not pod["metadata"].get("deletionTimestamp")]
    return {metadata["name"]: metadata["uid"] for metadata in there if metadata["name"] in takes}


def evict(cluster: Cluster, pod: str) -> int:
    """Ask for a pod's eviction as `kubectl drain` does; return the code of the answer."""
    path = cluster.double.write_kubeconfig(cluster.system.settings.home / "operator")
    with config.new_client_from_config(str(path)) as api:
        try:
            core = client.CoreV1Api(api)
            return int(
                core.create_namespaced_pod_eviction_with_http_info(pod, NAMESPACE, {"metadata": {"name": pod}})[1]
            )
        except client.ApiException as error:
            return int(error.status)


def run_by_deployment(cluster: Cluster) -> list[HandAgent]:
    """Let the pool say that the Deployment runs its pods; register their agents."""
    spec = cluster.spec()
    assert spec.kubernetes is not None
    pods = spec.kubernetes.model_copy(update={"deployment": OLD})
    _save(cluster, spec.model_copy(update={"kubernetes": pods}))
    cluster.cycle()
    return cluster.register()


def _several_cycles(cluster: Cluster) -> None:
    for _ in range(3):
        cluster.cycle()


def test_every_pod_goes_on_with_its_run_as_a_single_pod(old: Cluster) -> None:
    before = uids(old)
    adopt_deployment(old.system, POOL, OLD)
    started = busy(old)
    assert uids(old) == before
    assert owners(old) == [None] * 3
    old.cycle()
    assert [old.run(run).status for run in started] == [RunStatus.PLANNING] * 3
    assert scale.scale_pods(old.system, old.spec(), 0) == 0
    assert uids(old) == before


def test_a_busy_pod_that_was_adopted_is_not_evicted_and_an_idle_one_is(old: Cluster) -> None:
    """F44: the budget selects by labels that adoption sets, whatever the Deployment had labelled its pods with."""
    release = old.system.settings.instance
    for budget in of_kind(render(name=release, namespace=NAMESPACE), "PodDisruptionBudget"):
        old.double.put("poddisruptionbudgets", budget["metadata"]["name"], spec=budget["spec"])
    old.configure(min_agents=3)
    adopt_deployment(old.system, POOL, OLD)
    old.register()
    run = old.submit(workspace=old.workspace()).id
    applying = old.agents[old.run(run).agent or ""]
    applying.work()
    decide.confirm(old.system, run)
    assert applying.start(applying.order())
    old.cycle()

    answers = {name: evict(old, name) for name in old.agents}

    assert answers.pop(applying.name) == 429
    assert set(answers.values()) == {201}
    assert old.run(run).status is RunStatus.APPLYING


def test_runs_that_began_under_the_deployment_are_not_touched(old: Cluster) -> None:
    spec = old.spec()
    assert spec.kubernetes is not None
    before = uids(old)
    by_old = spec.model_copy(update={"kubernetes": spec.kubernetes.model_copy(update={"deployment": OLD})})
    _save(old, by_old)
    started = busy(old)
    old.cycle()
    assert old.slots.stats().running == 3
    adopt_deployment(old.system, POOL, OLD)
    old.cycle()
    assert old.slots.stats().running == 3
    assert uids(old) == before
    assert {old.run(run).status for run in started} == {RunStatus.PLANNING}


def test_while_a_deployment_runs_the_pods_nothing_is_scaled(old: Cluster) -> None:
    run_by_deployment(old)
    before = uids(old)
    old.configure(min_agents=5)
    old.cycle()
    assert uids(old) == before
    assert scale.ensure_pods_for_pool(old.system, old.spec()) == 0
    with pytest.raises(StillInUse, match="Deployment 'old-agents' runs the pods"):
        scale.scale_pods(old.system, old.spec(), 0)


@pytest.mark.parametrize(
    "where",
    [
        ("get", "deployments"),
        ("create", "configmaps"),
        ("list", "replicasets"),
        ("patch", "pods"),
        ("delete", "deployments"),
        ("delete", "replicasets"),
    ],
)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_failure_at_any_step_ends_nothing_and_the_next_try_finishes(
    old: Cluster, where: tuple[str, str], after: bool
) -> None:
    before = uids(old)
    run_by_deployment(old)
    old.double.fail(*where, cut=True, after=after)
    with pytest.raises(TerraslotError):
        adopt_deployment(old.system, POOL, OLD)
    _several_cycles(old)
    assert staying(old) == before
    adopt_deployment(old.system, POOL, OLD)
    assert staying(old) == before
    assert owners(old) == [None] * 3
    assert old.spec().deployment is None


@pytest.mark.parametrize("labelled", range(3))
def test_a_death_between_two_pods_leaves_all_in_service(old: Cluster, labelled: int) -> None:
    old.register()
    before = uids(old)
    old.double.fail("delete", "replicasets", cut=True)
    with pytest.raises(TerraslotError):
        adopt_deployment(old.system, POOL, OLD)
    old.double.fail("patch", "pods", cut=True, skip=labelled)
    with pytest.raises(TerraslotError):
        adopt_deployment(old.system, POOL, OLD)
    assert owners(old) == [None] * 3
    _several_cycles(old)
    assert staying(old) == before
    adopt_deployment(old.system, POOL, OLD)
    assert staying(old) == before


def test_a_death_before_the_last_step_leaves_all_in_service(old: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    old.register()
    before = uids(old)
    with monkeypatch.context() as dying:
        dying.setattr(adopt, "_adopt", lambda *arguments: (_adopt(*arguments), 1 / 0))
        with pytest.raises(ZeroDivisionError):
            adopt_deployment(old.system, POOL, OLD)
    assert owners(old) == [None] * 3
    _several_cycles(old)
    assert staying(old) == before
    assert adopt_deployment(old.system, POOL, OLD) == old.spec()
    assert (old.spec().deployment, old.spec().adopting) == (None, False)


@pytest.mark.parametrize("step", [("delete", "deployments"), ("delete", "replicasets"), ("get", "configmaps")])
def test_no_cycle_runs_meanwhile(old: Cluster, step: tuple[str, str]) -> None:
    ran: list[bool] = []
    old.double.fail(*step, first=lambda: ran.append(cycle(old.system, POOL)))
    before = uids(old)
    adopt_deployment(old.system, POOL, OLD)
    assert ran == [False]
    assert uids(old) == before


def test_a_cycle_that_took_the_lock_over_ends_and_drains_nothing(old: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where this process was stopped for longer than its lock lasts, just when the pods have lost their owner."""
    make_single = Deployments._make_single
    old.register()
    before = uids(old)

    def late(deployments: Deployments, pool: str, kept: Any) -> None:
        old.redis.delete(*PoolKeys(POOL).lock("cycle"))
        old.cycle()
        assert staying(old) == before
        make_single(deployments, pool, kept)

    with monkeypatch.context() as slow:
        slow.setattr(Deployments, "_make_single", late)
        with pytest.raises(LockLost):
            adopt_deployment(old.system, POOL, OLD)
    adopt_deployment(old.system, POOL, OLD)
    assert staying(old) == before


def test_single_pods_that_the_pool_had_before_stay_where_it_dies_at_once(old: Cluster) -> None:
    (own, *_) = old.start(1)
    before = {**uids(old)}
    old.double.fail("create", "configmaps", cut=True)
    with pytest.raises(TerraslotError):
        adopt_deployment(old.system, POOL, OLD)
    _several_cycles(old)
    assert staying(old) == before
    assert own.name in before


def test_a_pod_that_an_operator_lets_drain_goes_on_draining(old: Cluster) -> None:
    (one, *_) = run_by_deployment(old)
    drain.drain_agent(old.system, one.name)
    adopt_deployment(old.system, POOL, OLD)
    assert {agent.name for agent in old.slots.snapshot() if agent.draining} == {one.name}


def test_a_pool_that_drained_can_be_given_runs_again_half_way(old: Cluster) -> None:
    old.register()
    before = uids(old)
    drain.drain_pool(old.system, POOL)
    old.double.fail("patch", "pods", cut=True, skip=3)
    with pytest.raises(TerraslotError):
        adopt_deployment(old.system, POOL, OLD)
    drain.undrain_pool(old.system, POOL)
    assert staying(old) == before


def test_a_cluster_that_takes_its_time_is_waited_for_and_then_told_of(
    old: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as slow:
        slow.setattr(old.double.machinery, "_collect", lambda *_: None)
        with pytest.raises(Unavailable, match="still waits for the Deployment old-agents to leave its ReplicaSets"):
            adopt_deployment(old.system, POOL, OLD, wait=0)
    assert old.spec().deployment == OLD
    adopt_deployment(old.system, POOL, OLD)
    assert owners(old) == [None] * 3


def test_again_when_it_is_done_changes_nothing(old: Cluster) -> None:
    adopt_deployment(old.system, POOL, OLD)
    before = uids(old)
    adopt_deployment(old.system, POOL, OLD)
    assert uids(old) == before


def test_what_is_kept_of_the_deployment_goes_with_its_pool(old: Cluster) -> None:
    adopt_deployment(old.system, POOL, OLD)
    assert len(old.double.objects.all("configmaps", NAMESPACE)) == 1
    assert delete.delete_pool(old.system, POOL) == 0
    assert old.double.objects.all("configmaps", NAMESPACE) == []


def test_before_an_uninstallation_the_pods_of_the_deployment_drain_and_stay(old: Cluster) -> None:
    run_by_deployment(old)
    before = uids(old)
    assert shut_down.drain_all(old.system, timeout=0) == 3
    assert (uids(old), staying(old)) == (before, {})


def test_the_way_back_ends_idle_pods_at_once_and_busy_ones_when_they_are_done(old: Cluster) -> None:
    adopt_deployment(old.system, POOL, OLD)
    old.register()
    keeper_run = old.submit(workspace=old.workspace()).id
    keeper = old.agents[old.run(keeper_run).agent or ""]
    keeper.work()
    assert return_to_deployment(old.system, POOL, OLD) >= 1
    eventually(lambda: len(old.running()) == 1 + 3)
    assert keeper.name in old.running()
    old.cycle()
    new = old.register()
    assert len(new) == 3
    decide.confirm(old.system, keeper_run)
    keeper.work()
    assert old.run(keeper_run).status is RunStatus.SUCCEEDED
    assert return_to_deployment(old.system, POOL, OLD) <= 1
    eventually(lambda: len(old.running()) == 3)
    old.cycle()
    assert len(old.running()) == 3
    plan = old.submit(RunKind.PLAN, "net")
    assert plan.agent in [agent.name for agent in new]


def test_the_way_back_gives_the_deployment_no_hold_on_a_single_pod(old: Cluster) -> None:
    """A ReplicaSet of the same template would adopt pods with its hash, and end them to keep its count."""
    adopt_deployment(old.system, POOL, OLD)
    busy(old)
    before = uids(old)
    assert all(HASH not in pod["metadata"]["labels"] for pod in old.double.objects.all("pods", NAMESPACE))
    assert return_to_deployment(old.system, POOL, OLD) == 3
    eventually(lambda: len(old.running()) == 6)
    assert before.items() <= uids(old).items()


def test_there_and_back_and_there_again(old: Cluster) -> None:
    adopt_deployment(old.system, POOL, OLD)
    return_to_deployment(old.system, POOL, OLD)
    eventually(lambda: len(old.running()) == 3 and None not in owners(old))
    before = uids(old)
    adopt_deployment(old.system, POOL, OLD)
    assert uids(old) == before


def test_a_busy_pod_that_was_being_released_stays_when_the_deployment_is_adopted_again(old: Cluster) -> None:
    adopt_deployment(old.system, POOL, OLD)
    started = busy(old)
    before = uids(old)
    assert return_to_deployment(old.system, POOL, OLD) == 3
    eventually(lambda: len(old.running()) == 6)
    assert staying(old) == {}
    old.double.fail("delete", "deployments", cut=True)
    with pytest.raises(TerraslotError):
        adopt_deployment(old.system, POOL, OLD)
    _several_cycles(old)
    assert before.items() <= staying(old).items()
    adopt_deployment(old.system, POOL, OLD)
    old.register()
    assert before.items() <= staying(old).items()
    assert {old.run(run).status for run in started} == {RunStatus.PLANNING}


def test_the_way_back_waits_until_the_deployment_has_gone(old: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as slow:
        slow.setattr(old.double.machinery, "_collect", lambda *_: None)
        with pytest.raises(Unavailable):
            adopt_deployment(old.system, POOL, OLD, wait=0)
        with pytest.raises(Unavailable, match="still leaving its ReplicaSets"):
            return_to_deployment(old.system, POOL, OLD)
    assert old.spec().adopting


def test_two_control_planes_in_a_namespace_each_remember_the_deployment_of_their_own_pool_of_a_name(
    old: Cluster,
) -> None:
    container = {"name": "agent", "image": "agent:0"}
    template = {"metadata": {"labels": {"app": "theirs"}}, "spec": {"containers": [container]}}
    selector = {"matchLabels": {"app": "theirs"}}
    spec = {"replicas": 1, "selector": selector, "template": template}
    old.double.put("deployments", "their-agents", spec=spec)
    api = Api(str(old.double.write_kubeconfig(old.system.settings.home / "theirs")))
    theirs = KubernetesPods(api, instance="another").deployments
    eventually(lambda: len(old.running()) == 4)
    adopt_deployment(old.system, POOL, OLD)
    eventually(lambda: theirs.adopt(POOL, "their-agents") is None)
    assert len(old.double.objects.all("configmaps", NAMESPACE)) == 2
    old.register()
    return_to_deployment(old.system, POOL, OLD)
    theirs.restore(POOL, "their-agents")
    assert len(old.double.objects.all("deployments", NAMESPACE)) == 2
    api.close()


def test_a_deployment_that_does_not_exist_is_refused(old: Cluster) -> None:
    with pytest.raises(InvalidRequest, match="no Deployment 'nothing' in the namespace terraslot"):
        adopt_deployment(old.system, POOL, "nothing")
    with pytest.raises(InvalidRequest, match="nothing to go back to"):
        return_to_deployment(old.system, POOL, OLD)
    assert old.spec().deployment is None


@pytest.mark.parametrize(
    ("call", "old_name"),
    [
        (lambda cluster: scale.ensure_deployment_for_pool(cluster.system, cluster.spec()), "ensure_deployment"),
        (lambda cluster: scale.scale_deployment(cluster.system, cluster.spec(), 0), "scale_deployment"),
        (lambda cluster: scale.get_deployment_replicas(cluster.system, cluster.spec()), "get_deployment"),
        (lambda cluster: scale.auto_scale_deployment(cluster.system, cluster.spec()), "auto_scale_deployment"),
    ],
)
def test_the_old_names_warn_and_do_what_the_new_ones_do(
    cluster: Cluster, call: Callable[[Cluster], Any], old_name: str
) -> None:
    cluster.configure(min_agents=1)
    with pytest.warns(DeprecationWarning, match=f"{old_name}.* is now "):
        result = call(cluster)
    assert result in (1, 0, scale.PodCount(0, 0), (1, True))


def _save(cluster: Cluster, spec: Any) -> None:
    with cluster.system.database.begin() as session:
        stored.update(session, spec, cluster.system.now())
    assert cluster.system.pool(POOL) == spec
