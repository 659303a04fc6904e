"""What reaches what, by the chart's network policies; F44: agents that were adopted like those that were created."""

from __future__ import annotations

import pytest

from tests.chart.network import Place, reaches
from tests.chart.rendering import (
    EVERYTHING,
    EXISTING,
    NAMESPACE,
    POOLS,
    RELEASE,
    Object,
    containers,
    of_kind,
    pods,
    render,
)
from workers.cluster.kubernetes.labels import of_pool
from workers.cluster.kubernetes.manifest import pod_manifest
from workers.specs.kubernetes import KubernetesSpec
from workers.specs.pools import PoolSpec

REDIS, POSTGRESQL, FLOWER, METRICS, API, WEB, DNS = 6379, 5432, 5555, 9464, 6443, 443, 53
_DNS_SERVER = Place("kube-system", (("k8s-app", "kube-dns"),))
_ELSEWHERE = Place("elsewhere", (("app.kubernetes.io/instance", RELEASE), ("team", "web")))
_INTERNET, _INTRANET, _METADATA = (
    Place(None, address=each) for each in ("93.184.216.34", "10.1.2.3", "169.254.169.254")
)
_OPEN = {
    **POOLS,
    "networkPolicies": {
        "flowerFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "elsewhere"}}}]
    },
}


# As a Deployment's chart labels its pods, which keep that when they are adopted.
_OF_A_DEPLOYMENT = {"app.kubernetes.io/instance": "old", "app.kubernetes.io/managed-by": "Helm"}


def _agents(namespace: str) -> dict[str, Place]:
    spec = PoolSpec(name="default", type="kubernetes", kubernetes=KubernetesSpec(image="agent"))
    labels = {
        "agent": pod_manifest(spec, "default-1", instance=RELEASE)["metadata"]["labels"],
        "adopted": {**_OF_A_DEPLOYMENT, **of_pool(RELEASE, "default")},
    }
    return {name: Place(namespace, tuple(each.items())) for name, each in labels.items()}


class Cluster:
    """The pods of a release, by component, and its policies."""

    def __init__(self, values: Object, agents: str = NAMESPACE) -> None:
        objects = render(values)
        self.policies = of_kind(objects, "NetworkPolicy")
        self.places = {component: _place(pod) for component, pod in pods(objects)} | _agents(agents)

    def who_reaches(self, target: str | Place, port: int) -> set[str]:
        place = self.places[target] if isinstance(target, str) else target
        return {
            name
            for name, origin in self.places.items()
            if origin is not place and reaches(self.policies, origin, place, port)
        }


def _place(pod: Object) -> Place:
    ports = [(port["name"], port["containerPort"]) for each in containers(pod) for port in each.get("ports", [])]
    return Place(NAMESPACE, tuple(pod["metadata"]["labels"].items()), tuple(ports))


_AGENTS = {"agent", "adopted"}
_CONTROL_PLANE = {"control", "cluster", "reports", "beat", "flower", "migrate", "pools", "drain", "test"}


@pytest.mark.parametrize(
    ("values", "agents"), [(_OPEN, NAMESPACE), (EVERYTHING, "agents")], ids=["one", "two namespaces"]
)
def test_each_part_reaches_what_it_needs(values: Object, agents: str) -> None:
    cluster = Cluster(values, agents)

    assert cluster.who_reaches("valkey", REDIS) == _CONTROL_PLANE | _AGENTS
    assert cluster.who_reaches("postgresql", POSTGRESQL) == _CONTROL_PLANE
    assert cluster.who_reaches("flower", FLOWER) == {"test"}
    assert cluster.who_reaches(_DNS_SERVER, DNS) == _CONTROL_PLANE | _AGENTS
    assert cluster.who_reaches(_INTRANET, API) == {"cluster", "pools", "drain"}
    assert cluster.who_reaches(_INTERNET, WEB) == {"cluster", "pools", "drain"} | _AGENTS


def test_terraform_reaches_neither_private_networks_nor_the_metadata_of_a_cloud() -> None:
    cluster = Cluster(_OPEN)

    for place, port in ((_INTRANET, WEB), (_METADATA, 80), (_INTRANET, API)):
        assert not _AGENTS & cluster.who_reaches(place, port)


def test_agents_accept_no_connections_and_other_parts_only_named_ones() -> None:
    cluster = Cluster(_OPEN)

    for name in (*_AGENTS, "control", "beat"):
        assert all(cluster.who_reaches(name, port) == set() for port in (WEB, 8080)), name
    for name, port in (("valkey", REDIS), ("postgresql", POSTGRESQL)):
        assert not reaches(cluster.policies, _ELSEWHERE, cluster.places[name], port)
    assert reaches(cluster.policies, _ELSEWHERE, cluster.places["flower"], FLOWER)


def test_the_workers_metrics_are_read_by_those_who_are_let_and_the_agents_have_none() -> None:
    prometheus = Place("monitoring", (("app", "prometheus"),))
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    shut, let = Cluster(POOLS), Cluster({**POOLS, "networkPolicies": {"metricsFrom": [peer]}})

    reached = {name for name, place in let.places.items() if reaches(let.policies, prometheus, place, METRICS)}
    assert reached == {"control", "cluster", "reports"}
    assert not any(reaches(shut.policies, prometheus, place, METRICS) for place in shut.places.values())


def test_only_workers_reach_the_collector_of_traces() -> None:
    collector = Place("observability", (("app", "collector"),))
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "observability"}}}
    traced = Cluster(
        {**POOLS, "traces": {"endpoint": "http://c:4318"}, "networkPolicies": {"collector": {"to": [peer]}}}
    )

    assert traced.who_reaches(collector, 4318) == {"control", "cluster", "reports"}
    assert Cluster(POOLS).who_reaches(collector, 4318) == set()


def test_keda_asks_the_valkey_of_this_chart_where_it_is_let() -> None:
    keda = Place("keda", (("app", "keda-operator"),))
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "keda"}}}
    shut, let = Cluster({}), Cluster({"networkPolicies": {"valkeyFrom": [peer]}})

    assert not reaches(shut.policies, keda, shut.places["valkey"], REDIS)
    assert reaches(let.policies, keda, let.places["valkey"], REDIS)


def test_servers_outside_are_reached_on_their_ports_and_can_be_narrowed_down() -> None:
    anywhere = Cluster(EXISTING)
    narrow = Cluster(
        {**EXISTING, "networkPolicies": {"redis": {"to": [{"ipBlock": {"cidr": "10.1.2.0/24"}}], "ports": [6380]}}}
    )

    assert anywhere.who_reaches(_INTRANET, REDIS) >= {"control", "beat", "agent"}
    assert "agent" not in anywhere.who_reaches(_INTRANET, POSTGRESQL)
    assert "agent" in narrow.who_reaches(_INTRANET, 6380)
    assert not {"agent", "control"} & narrow.who_reaches(Place(None, address="10.9.9.9"), 6380)


def test_without_network_policies_nothing_is_restricted() -> None:
    assert Cluster({"networkPolicies": {"enabled": False}}).policies == []
