"""Clusters for tests: the double on a real socket, and any cluster that ``TERRASLOT_TEST_KUBECONFIG`` names.

The contract tests take a :class:`Target`, which is either; all others need the double, for they break it.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config

from tests.kubernetes.control import Cluster, control_plane
from tests.kubernetes.double.cluster import NAMESPACE, Double
from tests.waiting import eventually
from workers.cluster.kubernetes.api import Api
from workers.cluster.kubernetes.backend import KubernetesPods
from workers.core.pools import PoolLimits
from workers.services.system import System
from workers.slots.slot_map import SlotMap
from workers.specs.pools import PoolSpec

REAL = "TERRASLOT_TEST_KUBECONFIG"
NOWHERE = {"terraslot.dev/no-such-node": "true"}


def pool(name: str = "default", *, limits: PoolLimits | None = None, **pods: Any) -> PoolSpec:
    """Return a pool whose pods ask for little."""
    small = {"requests": {"cpu": "10m", "memory": "16Mi"}}
    spec = {"image": "registry.invalid/agent:1", "resources": small, **pods}
    return PoolSpec(name=name, type="kubernetes", kubernetes=spec, limits=limits or PoolLimits())


@pytest.fixture
def double() -> Iterator[Double]:
    """Return a double whose pods are nothing."""
    made = Double()
    yield made
    made.close()


@pytest.fixture
def backends(tmp_path: Path) -> Iterator[Callable[..., KubernetesPods]]:
    """Return a maker of backends on a double; they are closed when the test ends."""
    made: list[KubernetesPods] = []

    def make(double: Double, *, token: str | None = None, **options: Any) -> KubernetesPods:
        path = double.write_kubeconfig(tmp_path / f"kubeconfig-{len(made)}", token)
        backend = KubernetesPods(Api(str(path), **{"read_seconds": 5.0, **options}))
        made.append(backend)
        return backend

    yield make
    for backend in made:
        backend.close()


@pytest.fixture
def pods(double: Double, backends: Callable[..., KubernetesPods]) -> KubernetesPods:
    """Return a backend on the double."""
    return backends(double)


@dataclass
class Target:
    """A cluster that a contract test may use, in a namespace of its own."""

    kubeconfig: str
    namespace: str
    api: client.ApiClient

    @property
    def core(self) -> client.CoreV1Api:
        return client.CoreV1Api(self.api)

    @property
    def rbac(self) -> client.RbacAuthorizationV1Api:
        return client.RbacAuthorizationV1Api(self.api)

    @property
    def apps(self) -> client.AppsV1Api:
        return client.AppsV1Api(self.api)

    def backend(self, kubeconfig: str | None = None, **options: str) -> KubernetesPods:
        return KubernetesPods(Api(kubeconfig or self.kubeconfig, self.namespace), **options)  # type: ignore[arg-type]


def _connect(kubeconfig: str) -> client.ApiClient:
    configuration = client.Configuration()
    config.load_kube_config(kubeconfig, client_configuration=configuration)
    configuration.retries = False
    return client.ApiClient(configuration)


def _needs_cluster() -> pytest.MarkDecorator:
    return pytest.mark.skipif(not os.environ.get(REAL), reason=f"{REAL} names no cluster to hold the double against")


@pytest.fixture(params=["double", pytest.param("cluster", marks=_needs_cluster())])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    """Return the double, or the cluster that the environment names, with an empty namespace."""
    made = Double() if request.param == "double" else None
    kubeconfig = str(made.write_kubeconfig(tmp_path / "kubeconfig")) if made else os.environ[REAL]
    api = _connect(kubeconfig)
    namespace = NAMESPACE if made else f"terraslot-test-{uuid.uuid4().hex[:8]}"
    if made is None:
        _create_namespace(api, namespace)
    yield Target(kubeconfig, namespace, api)
    if made is None:
        _delete_namespace(api, namespace)
    api.close()
    if made:
        made.close()


def _delete_namespace(api: client.ApiClient, name: str) -> None:
    try:
        client.CoreV1Api(api).delete_namespace(name)
    except client.ApiException as error:
        if error.status not in (404, 409):  # the test did it
            raise


def _create_namespace(api: client.ApiClient, name: str) -> None:
    core = client.CoreV1Api(api)
    core.create_namespace({"metadata": {"name": name}})
    try:  # a controller does it, where there is one
        core.create_namespaced_service_account(name, {"metadata": {"name": "default"}})
    except client.ApiException as error:
        if error.status != 409:
            raise
    eventually(lambda: core.read_namespaced_service_account("default", name), 30)


@pytest.fixture
def cluster(tmp_path: Path, redis_url: str, double: Double) -> Iterator[Cluster]:
    """Return a control plane over the double."""
    with control_plane(tmp_path, redis_url, double) as made:
        yield made


@pytest.fixture
def clock_ahead(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that moves all clocks ahead by seconds in all: as if so much time had passed."""
    ahead = [0.0]
    real = System.now

    def server_time() -> float:
        seconds, microseconds = cluster.redis.time()
        return float(seconds + microseconds / 1e6 + ahead[0])

    monkeypatch.setattr(System, "now", lambda self: real(self) + timedelta(seconds=ahead[0]))
    monkeypatch.setattr(System, "slots", lambda self, pool: SlotMap(self.redis, pool, clock=server_time))

    def move(seconds: float) -> None:
        ahead[0] = cluster.double.objects.ahead = seconds

    return move
