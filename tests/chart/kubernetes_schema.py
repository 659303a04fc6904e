"""Kubernetes' own schemas, in the strict form that knows no unknown field."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

OLDEST, NEWEST = "1.29", "1.36"
# Objects of operators that the release need not have; their form is held to what the operators' documentation says.
FOREIGN = {
    ("monitoring.coreos.com/v1", "ServiceMonitor"),
    ("monitoring.coreos.com/v1", "PodMonitor"),
    ("monitoring.coreos.com/v1", "PrometheusRule"),
    ("keda.sh/v1alpha1", "ScaledObject"),
    ("keda.sh/v1alpha1", "TriggerAuthentication"),
}


def problems(manifest: dict[str, Any], version: str) -> list[str]:
    """What Kubernetes would not take of an object, each with its path."""
    return _problems(json.dumps(manifest), version)


# Most objects are the same in many variants.
@cache
def _problems(text: str, version: str) -> list[str]:
    manifest = json.loads(text)
    return [
        f"{manifest['kind']} {manifest['metadata']['name']}: {error.json_path}: {error.message}"
        for error in _validator(manifest["apiVersion"], manifest["kind"], version).iter_errors(manifest)
    ]


@cache
def _validator(api_version: str, kind: str, version: str) -> Draft202012Validator:
    group = api_version.partition("/")[0].partition(".")[0]
    parts = [kind.lower(), *([group] if "/" in api_version else []), api_version.rpartition("/")[2]]
    return Draft202012Validator(_read(version, "-".join(parts)), registry=_definitions(version))


@cache
def _definitions(version: str) -> Registry:
    resource = Resource.from_contents(_read(version, "_definitions"), default_specification=DRAFT202012)
    return Registry().with_resource("_definitions.json", resource)


def _read(version: str, name: str) -> dict[str, Any]:
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    return json.loads((folder / f"{name}.json").read_text())
