"""What may be created, and what the server adds to it."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from kubernetes import client

from tests.kubernetes.double.errors import ApiError, bad_request, forbidden, invalid
from tests.kubernetes.double.objects import KINDS, Objects

Object = dict[str, Any]

_MODELS = {"pods": "V1Pod", "deployments": "V1Deployment", "secrets": "V1Secret", "configmaps": "V1ConfigMap"}
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_SCALE = {"m": Decimal("0.001"), "k": 1000, "M": 1000**2, "G": 1000**3, "Ki": 1024, "Mi": 1024**2, "Gi": 1024**3, "": 1}
_SECRET_LIMIT = 1024 * 1024


def admit(objects: Objects, resource: str, namespace: str, new: Object, query: dict[str, str]) -> Object:
    """Return the object as it would be kept. Raises :class:`ApiError` as the real server words it."""
    if query.get("fieldValidation") == "Strict" and resource in _MODELS:
        _refuse_unknown_fields(KINDS[resource], new, _MODELS[resource])
    metadata = new.setdefault("metadata", {})
    if "name" not in metadata and metadata.get("generateName"):
        metadata["name"] = f"{metadata['generateName']}{objects.version:05x}"
    if namespace:
        _check_namespace(objects, resource, namespace, metadata.get("name", ""))
    _validate_metadata(resource, metadata)
    if resource == "pods":
        _default_pod(new)
        _check_service_account(objects, namespace, new)
        _validate_pod(new)
        _check_quota(objects, namespace, new)
    if resource == "secrets":
        _validate_secret(new)
    if resource == "nodes":
        new.setdefault("spec", {})
    if resource == "namespaces":
        new.setdefault("spec", {"finalizers": ["kubernetes"]})
        new["status"] = {"phase": "Active"}
    return new


def amount(quantity: str) -> Decimal:
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(quantity)).groups()
    return Decimal(number) * _SCALE[unit]


def _check_namespace(objects: Objects, resource: str, namespace: str, name: str) -> None:
    found = objects.find("namespaces", "", namespace)
    if found is None:
        raise ApiError(404, "NotFound", f'namespaces "{namespace}" not found', name=namespace, kind="namespaces")
    if found["metadata"].get("deletionTimestamp"):
        why = f"unable to create new content in namespace {namespace} because it is being terminated"
        raise forbidden(resource, name, why, cause="NamespaceTerminating")


def _validate_metadata(resource: str, metadata: Object) -> None:
    name = metadata.get("name", "")
    if not name:
        raise invalid(KINDS[resource], name, "metadata.name: Required value: name or generateName is required")
    if not _NAME.fullmatch(name):
        problem = f'metadata.name: Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of lower case'
        raise invalid(KINDS[resource], name, problem)
    for key, value in (metadata.get("labels") or {}).items():
        if len(value) > 63 or not _LABEL.fullmatch(value):
            problem = f'metadata.labels: Invalid value: "{value}": {key} must be no more than 63 characters'
            raise invalid(KINDS[resource], name, problem)


def _default_pod(pod: Object) -> None:
    spec = pod.setdefault("spec", {})
    for name, value in {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "serviceAccountName": "default",
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
    }.items():
        spec.setdefault(name, value)
    for container in spec.get("containers") or []:
        limits = (container.setdefault("resources", {})).get("limits") or {}
        if limits:
            container["resources"]["requests"] = {**limits, **(container["resources"].get("requests") or {})}
    pod["status"] = {"phase": "Pending", "qosClass": "Burstable"}


def _check_service_account(objects: Objects, namespace: str, pod: Object) -> None:
    account, name = pod["spec"]["serviceAccountName"], pod["metadata"]["name"]
    if objects.find("serviceaccounts", namespace, account) is None:
        why = f'error looking up service account {namespace}/{account}: serviceaccount "{account}" not found'
        raise forbidden("pods", name, why)


def _validate_pod(pod: Object) -> None:
    spec, problems = pod["spec"], []
    volumes = {volume.get("name") for volume in spec.get("volumes") or []}
    if not spec.get("containers"):
        problems.append("spec.containers: Required value")
    for position, container in enumerate(spec.get("containers") or []):
        path = f"spec.containers[{position}]"
        if not container.get("image"):
            problems.append(f"{path}.image: Required value")
        for number, mount in enumerate(container.get("volumeMounts") or []):
            if mount["name"] not in volumes:
                problems.append(f'{path}.volumeMounts[{number}].name: Not found: "{mount["name"]}"')
        limits, requests = (container["resources"].get(kind) or {} for kind in ("limits", "requests"))
        for name in limits.keys() & requests.keys():
            if amount(requests[name]) > amount(limits[name]):
                what = f'"{requests[name]}": must be less than or equal to {name} limit of {limits[name]}'
                problems.append(f"{path}.resources.requests: Invalid value: {what}")
    if spec["restartPolicy"] not in ("Always", "OnFailure", "Never"):
        values = '"Always", "OnFailure", "Never"'
        problems.append(f'spec.restartPolicy: Unsupported value: "{spec["restartPolicy"]}": supported values: {values}')
    if problems:
        raise invalid("Pod", pod["metadata"]["name"], *problems)


def _check_quota(objects: Objects, namespace: str, pod: Object) -> None:
    pods = [each for each in objects.all("pods", namespace) if each["status"].get("phase") in ("Pending", "Running")]
    for quota in objects.all("resourcequotas", namespace):
        for name, hard in (quota.get("spec", {}).get("hard") or {}).items():
            asked = _usage(pod, name)
            if asked is None:
                names = ",".join(container["name"] for container in pod["spec"]["containers"])
                why = f"failed quota: {quota['metadata']['name']}: must specify {name} for: {names}"
                raise forbidden("pods", pod["metadata"]["name"], why)
            used = sum((_usage(each, name) or Decimal(0) for each in pods), Decimal(0))
            if used + asked > amount(hard):
                why = (
                    f"exceeded quota: {quota['metadata']['name']}, requested: {name}={asked}, used: {name}={used}, "
                    f"limited: {name}={hard}"
                )
                raise forbidden("pods", pod["metadata"]["name"], why)


def _usage(pod: Object, name: str) -> Decimal | None:
    if name in ("pods", "count/pods"):
        return Decimal(1)
    kind, _, resource = name.partition(".")
    given = [(each["resources"].get(kind) or {}).get(resource) for each in pod["spec"]["containers"]]
    return None if None in given else sum((amount(quantity) for quantity in given), Decimal(0))


def _validate_secret(secret: Object) -> None:
    size = sum(len(value) * 3 // 4 for value in (secret.get("data") or {}).values())
    size += sum(len(value) for value in (secret.get("stringData") or {}).values())
    if size > _SECRET_LIMIT:
        raise invalid("Secret", secret["metadata"]["name"], "data: Too long: may not be more than 1048576 bytes")


def _refuse_unknown_fields(kind: str, new: Object, model: str) -> None:
    unknown = [f'unknown field "{path}"' for path in _unknown(new, model, "")]
    if unknown:
        said = ", ".join(unknown)
        raise bad_request(f'{kind} in version "v1" cannot be handled as a {kind}: strict decoding error: {said}')


def _unknown(value: Any, model: str, path: str) -> list[str]:
    if match := re.fullmatch(r"List\[(.*)\]|list\[(.*)\]", model):
        inner, items = match[1] or match[2], value if isinstance(value, list) else []
        return [found for number, item in enumerate(items) for found in _unknown(item, inner, f"{path}[{number}]")]
    shape = getattr(client, model, None)
    if shape is None or not isinstance(value, dict):
        return []
    types = {shape.attribute_map[name]: kind for name, kind in shape.openapi_types.items()}
    found = []
    for key, inner in value.items():
        where = f"{path}.{key}" if path else key
        found += _unknown(inner, types[key], where) if key in types else [where]
    return found
