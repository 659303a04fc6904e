"""The chart as a real Helm renders it, in the variants that its documentation names."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from helm_python import Chart

Object = dict[str, Any]

CHART = Path(__file__).parents[2] / "charts" / "terraslot"
RELEASE, NAMESPACE, NAME = "demo", "platform", "demo-terraslot"
POD_TEMPLATES = ("Deployment", "StatefulSet", "Job")

URLS: Object = {
    "valkey": {"enabled": False},
    "postgresql": {"enabled": False},
    "redis": {"url": "rediss://:rAbB1t@redis.example.com:6380/0"},
    "broker": {"url": "redis://:rAbB1t@broker.example.com/0"},
    "database": {"url": "postgresql://terraslot:rAbB1t%23@db.example.com/terraslot"},
}
EXISTING: Object = {
    "valkey": {"enabled": False},
    "postgresql": {"enabled": False},
    "redis": {"existingSecret": {"name": "the-redis"}},
    "broker": {"existingSecret": {"name": "the-broker", "key": "url"}},
    "database": {"existingSecret": {"name": "the-database", "key": "uri"}},
    "encryption": {"existingSecret": {"name": "the-keys"}},
}
POOLS: Object = {
    "pools": {
        "default": {"limits": {"min_agents": 1, "max_agents": 20}},
        "gpu": {"kubernetes": {"image": "registry.example.com/agent:7", "node_selector": {"gpu": "true"}}},
        "here": {"type": "local"},
    },
    "workspaces": {
        "network": {
            "source": {"type": "git", "url": "https://git.example.com/network.git", "ref": "main"},
            "variables": {"region": "eu", "zones": ["a", "b"], "size": 3},
            "auto_apply": True,
        }
    },
}
EVERYTHING: Object = {
    **POOLS,
    "image": {"digest": f"sha256:{'0' * 64}"},
    "imagePullSecrets": [{"name": "registry"}],
    "env": {"HTTPS_PROXY": "http://proxy.example.com:3128"},
    "control": {"autoscaling": {"enabled": True}},
    "flower": {
        "auth": {"existingSecret": "flower-login"},
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "tlsSecret": "flower-tls",
            "annotations": {"example.com/limit": "5"},
        },
    },
    "agents": {
        "namespace": "agents",
        "adoptDeployments": True,
        "watchNodes": True,
        "serviceAccountAnnotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/a"},
    },
    "networkPolicies": {
        "flowerFrom": [{"namespaceSelector": {"matchLabels": {"team": "web"}}}],
        "metricsFrom": [{"namespaceSelector": {"matchLabels": {"team": "prometheus"}}}],
    },
    "monitoring": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "rules": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboard": {"enabled": True},
    },
    "traces": {
        "endpoint": "http://collector.observability:4318",
        "headers": {"existingSecret": {"name": "the-collector"}},
    },
    "valkey": {"storage": {"className": "fast"}},
    "postgresql": {"storage": {"className": "fast"}},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "platform", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "important",
    "podAnnotations": {"example.com/team": "platform"},
}
VARIANTS: dict[str, Object] = {
    "default": {},
    "urls": URLS,
    "existing secrets": EXISTING,
    "pools and workspaces": POOLS,
    "everything": EVERYTHING,
    "everything outside": {
        **EVERYTHING,
        **EXISTING,
        "control": {"autoscaling": {"enabled": True, "redis": {"address": "broker.example.com:6379", "tls": True}}},
    },
    "no network policies": {"networkPolicies": {"enabled": False}},
    "no flower": {"flower": {"enabled": False}},
}


@cache
def chart() -> Chart:
    return Chart.load(CHART)


def render(values: Object | None = None, **options: Any) -> list[Object]:
    """All objects of a release, its hooks and tests too. Raises Helm's error where the chart refuses the values."""
    files = chart().render(values or {}, **{"name": RELEASE, "namespace": NAMESPACE, **options})
    return [
        document
        for path, text in sorted(files.items())
        if path.endswith(".yaml")
        for document in yaml.load_all(text, yaml.CSafeLoader)
        if document
    ]


def notes(values: Object | None = None) -> str:
    return chart().render(values or {}, name=RELEASE, namespace=NAMESPACE)["terraslot/templates/NOTES.txt"]


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    return [each for each in objects if each["kind"] in kinds]


def one(objects: list[Object], kind: str, name: str) -> Object:
    [found] = [each for each in of_kind(objects, kind) if each["metadata"]["name"] == name]
    return found


def pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Every pod that would run, by its component: labels under ``metadata``, and ``spec``."""
    for each in objects:
        if each["kind"] == "Pod":
            yield each["metadata"]["labels"]["app.kubernetes.io/component"], each
        elif each["kind"] in POD_TEMPLATES:
            template = each["spec"]["template"]
            yield template["metadata"]["labels"]["app.kubernetes.io/component"], template


def containers(pod: Object) -> list[Object]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def variables(container: Object) -> dict[str, Object]:
    return {variable["name"]: variable for variable in container.get("env", [])}


def hooks(each: Object) -> set[str]:
    return set(filter(None, each["metadata"].get("annotations", {}).get("helm.sh/hook", "").split(",")))


def with_value(values: Object, path: list[str], value: Any) -> Object:
    """A copy of ``values`` with one value more, at a path."""
    changed = deepcopy(values)
    part = changed
    for key in path[:-1]:
        part = part.setdefault(key, {})
    part[path[-1]] = value
    return changed
