"""What a node drain may evict: workers one at a time, idle agents freely, busy agents never."""

from __future__ import annotations

import pytest

from tests.chart.rendering import EVERYTHING, NAME, RELEASE, Object, of_kind, one, pods, render
from workers.cluster.kubernetes.labels import INSTANCE
from workers.cluster.kubernetes.manifest import pod_manifest
from workers.cluster.kubernetes.pod_status import eviction_patch
from workers.specs.kubernetes import KubernetesSpec
from workers.specs.pools import PoolSpec

_MOST_PODS_OF_A_CLUSTER = 150_000


def _agent_labels(*, busy: bool) -> dict[str, str]:
    spec = PoolSpec(name="default", type="kubernetes", kubernetes=KubernetesSpec(image="agent"))
    labels = pod_manifest(spec, "default-1", instance=RELEASE)["metadata"]["labels"]
    change = eviction_patch("uid", safe=not busy)["labels"]
    return {key: value for key, value in {**labels, **change}.items() if value is not None}


def _selected(budget: Object, labels: dict[str, str]) -> bool:
    return budget["spec"]["selector"]["matchLabels"].items() <= labels.items()


@pytest.fixture(scope="module")
def busy_agents() -> Object:
    return one(render(EVERYTHING), "PodDisruptionBudget", f"{NAME}-busy-agents")


def test_the_agents_budget_covers_busy_agents_of_this_release_and_no_idle_one(busy_agents: Object) -> None:
    strange = {**_agent_labels(busy=True), INSTANCE: "another"}

    assert busy_agents["metadata"]["namespace"] == "agents"
    assert _selected(busy_agents, _agent_labels(busy=True))
    assert not _selected(busy_agents, _agent_labels(busy=False))
    assert not _selected(busy_agents, strange)


@pytest.mark.parametrize(
    "others",
    [
        {"app.kubernetes.io/managed-by": "terraslot", "app.kubernetes.io/component": "agent"},
        {"app.kubernetes.io/managed-by": "Helm", "app.kubernetes.io/instance": "old"},
    ],
    ids=["of 0.1.0", "adopted from a Deployment"],
)
def test_it_covers_pods_that_this_version_has_not_made(busy_agents: Object, others: dict[str, str]) -> None:
    """F44"""
    ours = {f"terraslot.dev/{name}": value for name, value in (("instance", RELEASE), ("pool", "default"))}

    assert _selected(busy_agents, {**others, **ours, "terraslot.dev/busy": "true"})
    assert not _selected(busy_agents, {**others, **ours})


def test_it_is_never_satisfied_in_the_one_form_that_counts_for_pods_without_a_controller(busy_agents: Object) -> None:
    # However many agents are busy, fewer are there than must be: each eviction is refused, of an unready one too.
    assert isinstance(busy_agents["spec"]["minAvailable"], int)
    assert busy_agents["spec"]["minAvailable"] > _MOST_PODS_OF_A_CLUSTER
    assert busy_agents["spec"]["unhealthyPodEvictionPolicy"] == "IfHealthyBudget"


def test_every_pod_is_covered_by_one_budget_at_most_or_it_could_not_be_evicted_at_all() -> None:
    objects = render(EVERYTHING)
    budgets = of_kind(objects, "PodDisruptionBudget")
    labels = {component: pod["metadata"]["labels"] for component, pod in pods(objects)}

    covering = {name: [b for b in budgets if _selected(b, each)] for name, each in labels.items()}

    assert {name: len(found) for name, found in covering.items() if found} == {"control": 1, "cluster": 1, "reports": 1}
    assert all(found[0]["spec"]["maxUnavailable"] == 1 for found in covering.values() if found)
