"""A control plane over the double, with agents that tests move by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import redis

from tests.kubernetes.double.cluster import Double
from tests.kubernetes.double.objects import Object
from tests.services.conftest import POOL, ControlPlane, HandAgent, Pods, carry_out_at_once
from tests.waiting import eventually
from workers.app import build_app
from workers.cluster.kubernetes.api import Api
from workers.cluster.kubernetes.backend import KubernetesPods
from workers.core.pools import PoolLimits, PoolTimeouts
from workers.protocol import names
from workers.protocol.encryption import new_key
from workers.services.pools import manage as pools
from workers.services.runs import dispatch
from workers.services.scaling.cycle import cycle
from workers.services.system import System
from workers.settings import Settings
from workers.specs.kubernetes import KubernetesSpec
from workers.specs.pools import PoolSpec
from workers.store import pools as stored
from workers.store.database import Database

SMALL = {"requests": {"cpu": "10m", "memory": "16Mi"}}


def kubernetes_pool(name: str = POOL, **limits: Any) -> PoolSpec:
    return PoolSpec(
        name=name,
        type="kubernetes",
        kubernetes=KubernetesSpec(image="agent:1", resources=SMALL),  # type: ignore[arg-type]
        limits=PoolLimits(**{"max_agents": 5, "idle_timeout": 0, **limits}),
        timeouts=PoolTimeouts(silent=5, dead=20, redeem=30),
    )


@dataclass
class Cluster(ControlPlane):
    """The services' system over a Kubernetes pool; ``double`` is its cluster, ``agents`` those that registered."""

    double: Double = field(default_factory=Double)
    agents: dict[str, HandAgent] = field(default_factory=dict)

    def cycle(self) -> None:
        assert cycle(self.system, POOL)

    def start(self, count: int) -> list[HandAgent]:
        """Create pods, and let their agents register."""
        backend = self.system.pods(self.spec())
        assert backend.create_all(self.spec(), [f"{POOL}-{number}" for number in range(count)]) == {}
        return self.register()

    def register(self) -> list[HandAgent]:
        """Let the agent of every pod that runs, and has none, register; return these."""
        new = [name for name in self.running() if name not in self.agents]
        self.agents |= {name: HandAgent(self, name).register() for name in new}
        dispatch.dispatch(self.system, POOL)
        return [self.agents[name] for name in new]

    def running(self) -> list[str]:
        """Return the pods that run, once no pod is on its way there any more."""

        def settled() -> list[Object] | None:
            pods = self.double.objects.all("pods", "terraslot")
            on_the_way = any(pod["status"]["phase"] == "Pending" and not _stuck(pod) for pod in pods)
            return None if on_the_way else [*pods, {}]

        pods = eventually(settled)[:-1]
        return [pod["metadata"]["name"] for pod in pods if pod["status"]["phase"] == "Running"]

    def requests(self) -> list[tuple[str, str]]:
        """Return what the cluster was asked since the last call."""
        asked = [(request.verb, request.resource) for request in self.double.server.requests]
        self.double.server.requests.clear()
        return asked

    def configure(self, **limits: Any) -> None:
        """Change the pool's limits."""
        spec = self.spec()
        with self.system.database.begin() as session:
            changed = spec.limits.model_copy(update=limits)
            stored.update(session, spec.model_copy(update={"limits": changed}), self.system.now())

    def status(self, pool: str = POOL) -> str | None:
        with self.system.database.read() as session:
            return stored.status(session, pool)


def _stuck(pod: Object) -> bool:
    states = [each["state"] for each in pod["status"].get("containerStatuses") or ()]
    conditions = pod["status"].get("conditions") or ()
    return any("waiting" in state for state in states) or any(each["status"] == "False" for each in conditions)


@contextmanager
def control_plane(tmp_path: Path, redis_url: str, double: Double) -> Iterator[Cluster]:
    """Run a control plane with one Kubernetes pool whose Secret is there."""
    (tmp_path / "code").mkdir(exist_ok=True)
    (tmp_path / "code" / "main.tf").write_text('output "hello" { value = "world" }\n')
    settings = Settings(home=tmp_path, redis_url=redis_url, broker_url="", database_url="", encryption_keys=new_key())
    celery = build_app("test", [names.SUBMIT_QUEUE, names.CONTROL_QUEUE], [], settings)
    backend = KubernetesPods(Api(str(double.write_kubeconfig(tmp_path / "kubeconfig")), read_seconds=5.0))
    client = redis.Redis.from_url(redis_url)
    system = System(settings, Database(settings.database), client, client, celery, {"kubernetes": backend})
    system.database.migrate()
    carry_out_at_once(system)
    pools.ensure(system, kubernetes_pool())
    cluster = Cluster(system, Pods(), client, double=double)
    backend.put_secret(kubernetes_pool(), "{}")
    yield cluster
    for user in {*client.acl_users()} - {"default"}:  # which emptying a server leaves
        client.acl_deluser(user)
    backend.close()
    system.database.dispose()
    celery.close()
    client.close()


def another_process(cluster: Cluster) -> Cluster:
    """Return the same control plane as another process sees it: nothing of its memory, all of its stores."""
    path = cluster.system.settings.home / "kubeconfig"
    return replace(cluster, system=replace(cluster.system, backends={"kubernetes": KubernetesPods(Api(str(path)))}))


Clock = Callable[[float], None]
