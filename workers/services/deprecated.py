"""The names from when a Deployment ran the agents of a pool. Each warns, and calls what replaces it."""

from __future__ import annotations

import warnings

from workers.core.pools import PoolSpec
from workers.services import pods
from workers.services.system import System


def ensure_deployment_for_pool(system: System, spec: PoolSpec) -> int:
    """Create pods up to the pool's minimum. Deprecated: call :func:`workers.services.pods.ensure_pods_for_pool`."""
    _warn("ensure_deployment_for_pool", "ensure_pods_for_pool")
    return pods.ensure_pods_for_pool(system, spec)


def scale_deployment(system: System, spec: PoolSpec, replicas: int) -> int:
    """Bring the pool towards so many pods. Deprecated: call :func:`workers.services.pods.scale_pods`."""
    _warn("scale_deployment", "scale_pods")
    return pods.scale_pods(system, spec, replicas)


def get_deployment_replicas(system: System, spec: PoolSpec) -> pods.PodCount:
    """Return how many pods there are and should be. Deprecated: call :func:`workers.services.pods.get_pod_count`."""
    _warn("get_deployment_replicas", "get_pod_count")
    return pods.get_pod_count(system, spec)


def auto_scale_deployment(system: System, spec: PoolSpec) -> tuple[int, bool]:
    """Decide how many pods there should be and act. Deprecated: call :func:`workers.services.pods.autoscale_pods`."""
    _warn("auto_scale_deployment", "autoscale_pods")
    return pods.autoscale_pods(system, spec)


def _warn(old: str, new: str) -> None:
    warnings.warn(f"{old} is now workers.services.pods.{new}", DeprecationWarning, stacklevel=3)
