"""What a cycle of Kubernetes pools costs: requests, seconds and memory, as a pool grows, and for many small pools.

The API server is the tests' double in a process of its own; unlike a real one, it shares this machine's cores.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
import structlog

from bench import cluster
from bench.rows import Row, at_most, table
from tests.valkey_server import running_valkey
from workers.app import build_app
from workers.cluster.kubernetes.api import Api
from workers.cluster.kubernetes.backend import PAGE, KubernetesPods
from workers.protocol.encryption import new_key
from workers.services.pools import manage as pools
from workers.services.scaling.cycle import cycle
from workers.services.scaling.scale import scale_pods
from workers.services.system import System
from workers.settings import Settings
from workers.specs.pools import PoolSpec
from workers.store.database import Database

SMALL, LARGE = 1_000, 10_000
POOLS, PODS_EACH = 300, 3
CYCLES = 5
INTERVAL = 30.0
THREADS = 8  # as a control worker has
CHANGES = 20


@dataclass
class Counting(Api):
    """Counts the requests to the cluster, by verb and resource."""

    kubeconfig: str
    requests: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        super().__init__(self.kubeconfig, read_seconds=60)

    def request(self, verb: str, resource: str, *name: str, **options: Any) -> dict[str, Any]:
        self.requests[f"{verb} {resource}"] += 1
        return super().request(verb, resource, *name, **options)


@dataclass
class Bench:
    system: System
    api: Counting

    def fill(self, spec: PoolSpec) -> PoolSpec:
        """Enter a pool whose pods all have an idle agent."""
        pools.ensure(self.system, spec)
        slots = self.system.slots(spec.name)
        for name in cluster.names(spec):
            slots.register(name, "life-1")
        cycle(self.system, spec.name)  # its Secret, once
        return spec

    def requests(self) -> Counter[str]:
        """Return the requests since the last call."""
        requests, self.api.requests = self.api.requests, Counter()
        return requests


def measure(effort: float = 1.0) -> list[Row]:  # noqa: ARG001 - its sizes are what it measures
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    small, large = (_one_pool(pods) for pods in (SMALL, LARGE))
    growth = large.seconds / small.seconds
    return [
        *small.rows(SMALL),
        *large.rows(LARGE),
        at_most("seconds of a cycle, ten times the pods", growth, 15, "times"),
        *_changes(),
        *_many_pools(),
    ]


@dataclass
class Cost:
    requests: Counter[str]
    seconds: float
    megabytes: float

    def rows(self, pods: int) -> list[Row]:
        pages = -(-pods // PAGE)
        return [
            at_most(f"list requests of a cycle, {pods:,} pods", self.requests["list pods"], pages, "requests"),
            at_most(
                f"all requests of it (one more looks at the Secret), {pods:,} pods",
                self.requests.total(),
                pages + 1,
                "requests",
            ),
            at_most(f"seconds of a cycle, {pods:,} pods", self.seconds, INTERVAL / 2, "s"),
            Row(f"memory at its peak, {pods:,} pods", self.megabytes, "MB"),
        ]


def _one_pool(pods: int) -> Cost:
    with _bench(1, pods) as bench:
        spec = bench.fill(cluster.pool(0, pods))
        bench.requests()
        cycle(bench.system, spec.name)
        requests = bench.requests()
        seconds = [_seconds(lambda: cycle(bench.system, spec.name)) for _ in range(CYCLES)]
        tracemalloc.start()
        cycle(bench.system, spec.name)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return Cost(requests, statistics.median(seconds), peak / 1e6)


def _changes() -> list[Row]:
    with _bench(1, SMALL) as bench:
        spec = bench.fill(cluster.pool(0, SMALL))
        bench.requests()
        scale_pods(bench.system, spec, SMALL - CHANGES)
        removed = bench.requests()
        larger = spec.model_copy(update={"limits": spec.limits.model_copy(update={"max_agents": SMALL})})
        seconds = _seconds(lambda: scale_pods(bench.system, larger, SMALL))
        created = bench.requests()
    lists = removed["list pods"] + created["list pods"]
    changes = removed.total() + created.total() - lists
    return [
        at_most(f"requests for {2 * CHANGES} changes beside the pages", changes, 2 * CHANGES, "requests"),
        Row(f"{CHANGES} pods created, eight at a time", seconds, "s"),
    ]


def _many_pools() -> list[Row]:
    with _bench(POOLS, PODS_EACH) as bench:
        names = [bench.fill(cluster.pool(number, PODS_EACH)).name for number in range(POOLS)]
        bench.requests()
        with ThreadPoolExecutor(THREADS) as threads:
            seconds = _seconds(lambda: list(threads.map(lambda name: cycle(bench.system, name), names)))
        requests = bench.requests()
    return [
        at_most(f"a full round of {POOLS} pools of {PODS_EACH} pods", seconds, INTERVAL, "s"),
        at_most("requests a pool of that round", requests.total() / POOLS, 2, "requests"),
    ]


@contextmanager
def _bench(count: int, pods: int) -> Iterator[Bench]:
    with tempfile.TemporaryDirectory() as home, running_valkey() as url:
        directory = Path(home)
        with cluster.running(count, pods, directory) as kubeconfig:
            settings = Settings(
                home=directory, redis_url=url, broker_url="", database_url="", encryption_keys=new_key()
            )
            api = Counting(str(kubeconfig))
            celery = build_app("bench", [], [], settings)
            client = redis.Redis.from_url(url)
            system = System(
                settings, Database(settings.database), client, client, celery, {"kubernetes": KubernetesPods(api)}
            )
            system.database.migrate()
            yield Bench(system, api)
            api.close()
            system.database.dispose()
            celery.close()
            client.close()


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    print(table(measure()))
