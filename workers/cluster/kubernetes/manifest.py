"""The pod of an agent, as a pure function of its pool's configuration."""

import hashlib
import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from workers.cluster.kubernetes import labels
from workers.protocol.pool_secret import SECRET_FILE
from workers.protocol.settings import GIT_CACHE_BYTES, INIT_CACHE_BYTES
from workers.protocol.version import PROTOCOL
from workers.specs.kubernetes import (
    AGENT_CONTAINER,
    SECRET_DIR,
    TEMPORARY_DIR,
    WORK_DIR,
    KubernetesSpec,
    amount,
    merged,
)
from workers.specs.pod_security import CONTAINER, SECRET_VOLUME, TEMPORARY_VOLUME, WORK_VOLUME, pod_context
from workers.specs.pools import PoolSpec

Manifest = dict[str, Any]


def secret_name(pool: str, *, instance: str = labels.TERRASLOT) -> str:
    """Return the name of the Secret that holds the credentials of a pool's agents."""
    return labels.object_name("pool", instance, pool)


def pool_secret(pool: str, content: str, *, instance: str = labels.TERRASLOT) -> Manifest:
    """Return the Secret of a pool: one file, ``content``, which only the pool's agents mount."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {"name": secret_name(pool, instance=instance), "labels": _labels(instance, pool)},
        "data": {SECRET_FILE: b64encode(content.encode()).decode()},
    }


def pod_manifest(
    spec: PoolSpec, name: str, *, instance: str = labels.TERRASLOT, environment: Mapping[str, str] | None = None
) -> Manifest:
    """Return the pod ``name`` of a Kubernetes pool.

    ``environment``: settings that all agents share, none of them secret. What a container needs secretly is in the
    files of its pool's Secret. Only ``metadata.name`` tells the pods of a pool apart.
    """
    pod = _unnamed(spec, instance, environment or {})
    pod["metadata"]["labels"][labels.TEMPLATE] = template_digest(spec, instance=instance)
    pod["metadata"]["name"] = name
    return {"apiVersion": "v1", "kind": "Pod", **pod}


def template_digest(spec: PoolSpec, *, instance: str = labels.TERRASLOT) -> str:
    """Return what tells pods of another configuration of the pool, or protocol version, from those made now.

    Settings of the process that asks are no part of it: two processes may differ in them, a log's level for example.
    """
    pod = _unnamed(spec, instance, {})
    return hashlib.sha256(json.dumps([PROTOCOL, pod], sort_keys=True).encode()).hexdigest()[:16]


def _unnamed(spec: PoolSpec, instance: str, environment: Mapping[str, str]) -> Manifest:
    pods = spec.kubernetes
    if pods is None:
        raise ValueError(f"the pool {spec.name!r} is not one of Kubernetes")
    secret = secret_name(spec.name, instance=instance)
    own = {"app.kubernetes.io/name": labels.TERRASLOT, **pods.labels}
    metadata = _present(labels=own, annotations=pods.annotations)
    pod = merged({"metadata": metadata, "spec": _pod_spec(spec, pods, environment, secret)}, pods)
    pod["metadata"]["labels"] = {**pod["metadata"]["labels"], **_labels(instance, spec.name)}
    return pod


def _labels(instance: str, pool: str) -> dict[str, str]:
    return {**labels.RECOMMENDED, "app.kubernetes.io/instance": instance, **labels.of_pool(instance, pool)}


def _pod_spec(spec: PoolSpec, pods: KubernetesSpec, environment: Mapping[str, str], secret: str) -> Manifest:
    return {
        "containers": [_agent(spec, pods, environment)],
        # An agent that leaves by itself has left; one that dies begins anew beside the plans that it kept.
        "restartPolicy": "OnFailure",
        "terminationGracePeriodSeconds": spec.grace_seconds,
        "securityContext": pod_context(pods.user, pods.group),
        "automountServiceAccountToken": pods.service_account_token,
        "enableServiceLinks": False,
        "volumes": [
            {"name": WORK_VOLUME, **_work_source(pods)},
            {"name": TEMPORARY_VOLUME, "emptyDir": {}},
            {"name": SECRET_VOLUME, "secret": {"secretName": secret, "defaultMode": 0o440}},
            *pods.volumes,
        ],
        **_present(
            serviceAccountName=pods.service_account,
            imagePullSecrets=[{"name": secret} for secret in pods.image_pull_secrets],
            nodeSelector=pods.node_selector,
            tolerations=list(pods.tolerations),
            affinity=pods.affinity,
            priorityClassName=pods.priority_class,
            runtimeClassName=pods.runtime_class,
        ),
    }


def _agent(spec: PoolSpec, pods: KubernetesSpec, environment: Mapping[str, str]) -> Manifest:
    return {
        "name": AGENT_CONTAINER,
        "image": pods.image,
        "env": [*_environment(spec, pods, environment), *pods.env],
        "resources": _present(requests=pods.resources.requests, limits=pods.resources.limits),
        "securityContext": CONTAINER,
        "readinessProbe": {**_probe("ready"), "periodSeconds": 10, "timeoutSeconds": 5},
        # Two minutes more than the agent's supervisor, which starts a worker without progress again: the kubelet ends
        # the container, and terraform with it.
        "livenessProbe": {**_probe("alive"), "periodSeconds": 30, "timeoutSeconds": 10, "failureThreshold": 4},
        # The last log line of an agent that can't start is its pod's reason.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": WORK_VOLUME, "mountPath": WORK_DIR},
            {"name": TEMPORARY_VOLUME, "mountPath": TEMPORARY_DIR},
            {"name": SECRET_VOLUME, "mountPath": SECRET_DIR, "readOnly": True},
            *pods.volume_mounts,
        ],
        **_present(imagePullPolicy=pods.image_pull_policy, envFrom=list(pods.env_from)),
    }


def _caches(pods: KubernetesSpec) -> dict[str, str]:
    """Return what bounds an agent's caches on a small work volume: a pod whose volume is full is evicted."""
    if not pods.work_volume.size:
        return {}
    size = amount(pods.work_volume.size)
    shares = {
        "TERRASLOT_INIT_CACHE_BYTES": (size / 2, INIT_CACHE_BYTES),
        "TERRASLOT_GIT_CACHE_BYTES": (size / 4, GIT_CACHE_BYTES),
    }
    return {name: str(int(share)) for name, (share, default) in shares.items() if share < default}


def _environment(spec: PoolSpec, pods: KubernetesSpec, shared: Mapping[str, str]) -> list[Manifest]:
    own = {
        "TERRASLOT_POOL": spec.name,
        "TERRASLOT_WORK_DIR": WORK_DIR,
        "TERRASLOT_SECRET_DIR": SECRET_DIR,
        "TERRASLOT_GRACE_SECONDS": str(spec.grace_seconds),
        "HOME": TEMPORARY_DIR,
        **_caches(pods),
    }
    name = {"name": "TERRASLOT_AGENT", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    return [name, *({"name": key, "value": value} for key, value in {**shared, **own}.items())]


def _probe(question: str) -> Manifest:
    return {"exec": {"command": ["python", "-m", "agent.probe", question]}}


def _work_source(pods: KubernetesSpec) -> Manifest:
    volume = pods.work_volume
    if volume.storage_class is None:
        return {"emptyDir": _present(sizeLimit=volume.size)}
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": volume.storage_class,
        "resources": {"requests": {"storage": volume.size}},
    }
    return {"ephemeral": {"volumeClaimTemplate": {"spec": claim}}}


def _present(**fields: Any) -> Manifest:
    return {name: value for name, value in fields.items() if value}
