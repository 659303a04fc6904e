"""A cluster for measurements: the tests' API server in a process of its own, with many running pods.

``python -m bench.cluster POOLS PODS`` prints its address and token, and serves until its standard input is closed.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.kubernetes.double.access import Access
from tests.kubernetes.double.cluster import NAMESPACE, kubeconfig
from tests.kubernetes.double.objects import Objects
from tests.kubernetes.double.server import Server
from workers.cluster.kubernetes.manifest import pod_manifest
from workers.core.pools import PoolLimits, PoolTimeouts
from workers.specs.kubernetes import KubernetesSpec
from workers.specs.pools import PoolSpec

CONDITIONS = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
MOMENT = "2026-01-01T00:00:00Z"


def pool(number: int, pods: int) -> PoolSpec:
    """Return a pool that has its desired number of pods, and finds no agent silent while it is measured."""
    return PoolSpec(
        name=f"pool-{number:03}",
        type="kubernetes",
        kubernetes=KubernetesSpec(image="registry.example.com/terraslot/agent:1.0"),
        limits=PoolLimits(min_agents=pods, max_agents=pods),
        timeouts=PoolTimeouts(silent=3000, dead=6000),
    )


def names(spec: PoolSpec) -> list[str]:
    return [f"{spec.name}-{number:06x}" for number in range(spec.limits.max_agents)]


@contextmanager
def running(pools: int, pods: int, directory: Path) -> Iterator[Path]:
    """Run a cluster with ``pools`` pools of ``pods`` pods each; yield its kubeconfig."""
    command = [sys.executable, "-m", "bench.cluster", str(pools), str(pods)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        url, token = process.stdout.readline().split()
        path = directory / "kubeconfig"
        path.write_text(kubeconfig(url, token))
        yield path
        process.stdin.close()


def main(pools: int, pods: int) -> None:
    objects = Objects()
    access = Access(objects)
    server = Server(objects, access)
    server.api.create("namespaces", "", {"metadata": {"name": NAMESPACE}}, {})
    for spec in (pool(number, pods) for number in range(pools)):
        for name in names(spec):
            _add(objects, spec, name)
    print(server.url, access.admin_token, flush=True)
    sys.stdin.read()
    server.stop()


def _add(objects: Objects, spec: PoolSpec, name: str) -> None:
    pod = pod_manifest(spec, name)
    container = {"name": "agent", "ready": True, "restartCount": 0, "state": {"running": {"startedAt": MOMENT}}}
    container |= {"image": pod["spec"]["containers"][0]["image"], "imageID": "sha256:" + 64 * "0", "lastState": {}}
    conditions = [{"type": kind, "status": "True", "lastTransitionTime": MOMENT} for kind in CONDITIONS]
    pod["status"] = {"phase": "Running", "conditions": conditions, "containerStatuses": [container]}
    pod["spec"]["nodeName"] = "node-1"
    # A real server also lists the writer of each field, in about as many bytes as the rest.
    fields = {f"f:{key}": {} for part in ("metadata", "spec", "status") for key in pod[part]}
    pod["metadata"]["managedFields"] = [{"manager": "kubelet", "fieldsV1": fields, "time": MOMENT}] * 4
    objects.create("pods", NAMESPACE, pod)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
