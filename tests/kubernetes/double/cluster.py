"""The double as a whole, and what tests do to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.kubernetes.double.access import Access
from tests.kubernetes.double.api import Api
from tests.kubernetes.double.containers import Nothing
from tests.kubernetes.double.machinery import Machinery, Start
from tests.kubernetes.double.objects import Object, Objects
from tests.kubernetes.double.server import Fault, Server

NAMESPACE = "terraslot"
NODE = "node-1"


def kubeconfig(url: str, token: str, namespace: str = NAMESPACE) -> str:
    """Return a kubeconfig as text."""
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": url}}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
        }
    )


class Double:
    """An API server with one namespace, one node and everything that belongs to a cluster; ended by ``close``."""

    def __init__(self, start: Start = lambda _objects, _pod: Nothing()) -> None:
        self.objects = Objects()
        self.access = Access(self.objects)
        self.server = Server(self.objects, self.access)
        self.machinery = Machinery(Api(self.objects), start)
        self.server.api.create("namespaces", "", {"metadata": {"name": NAMESPACE}}, {})
        self.add_node(NODE)

    def close(self) -> None:
        self.server.stop()
        self.machinery.close()

    def write_kubeconfig(self, path: Path, token: str | None = None) -> Path:
        path.write_text(kubeconfig(self.server.url, token or self.access.admin_token))
        return path

    def fail(self, verb: str, resource: str = "pods", **how: Any) -> Fault:
        """Let the next such request go wrong."""
        fault = Fault(verb, resource, **how)
        self.server.faults.append(fault)
        return fault

    def pod(self, name: str) -> Object:
        return self.objects.get("pods", NAMESPACE, name)

    def pods(self) -> list[str]:
        return [pod["metadata"]["name"] for pod in self.objects.all("pods", NAMESPACE)]

    def change(self, name: str, edit: Callable[[Object], None]) -> None:
        self.objects.change("pods", NAMESPACE, name, edit)

    def fail_pod(self, name: str, reason: str = "", message: str = "") -> None:
        """Let a pod's containers end as the kubelet tells it of an eviction, a preemption or the node's shutdown."""
        self.machinery.container(name).kill()

        def failed(pod: Object) -> None:
            pod["status"] |= {"phase": "Failed", "reason": reason, "message": message}

        self.change(name, failed)

    def vanish(self, name: str) -> None:
        """Remove a pod as when its node is gone."""
        self.objects.remove("pods", NAMESPACE, name)

    def add_node(self, name: str) -> None:
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}
        self.objects.create("nodes", "", {"metadata": {"name": name}, "spec": {}, "status": ready})

    def cordon(self, name: str, *, ends: bool = False) -> None:
        """Let a node take no new pods, as ``kubectl cordon`` does; or end that."""
        self.objects.change("nodes", "", name, lambda node: node["spec"].update(unschedulable=not ends or None))

    def lose_node(self, name: str = NODE) -> None:
        """Let no node answer any more: processes go on unseen, and the server says of this one that it is not ready."""
        self.machinery.silent = True
        unknown = {"conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]}
        self.objects.change("nodes", "", name, lambda node: node.update(status=unknown))

    def put(self, resource: str, name: str, **content: Any) -> Object:
        return self.server.api.create(resource, NAMESPACE, {"metadata": {"name": name}, **content}, {})
