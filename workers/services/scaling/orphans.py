"""Orphaned pods: their pool was deleted, so that no cycle reconciles them. One task a round ends them."""

from __future__ import annotations

import structlog

from workers.core.pods import Pod
from workers.core.reconcile import DeletePod, orphaned_pods
from workers.protocol.errors import TerraslotError
from workers.services.system import System
from workers.store import pools

log = structlog.get_logger(__name__)


def sweep(system: System) -> int:
    """Delete the orphaned pods that hold nothing, drain the others; return how many were deleted.

    The pods of a backend that can't be asked stay until the next round.
    """
    known = _pools(system)
    deleted = 0
    for kind, backend in system.backends.items():
        try:
            pods = backend.orphaned_pods(known)
            # A pool is stored before its pods exist: one that was created since it was looked for is found now.
            for pool in sorted({pod.pool for pod in pods} - (_pools(system) if pods else set())):
                deleted += _sweep(system, kind, pool, [pod for pod in pods if pod.pool == pool])
        except TerraslotError as error:
            log.warning("orphaned pods not swept", type=kind, why=str(error))
    return deleted


def _pools(system: System) -> set[str]:
    with system.database.read() as session:
        return {spec.name for spec in pools.all(session)}


def _sweep(system: System, kind: str, pool: str, pods: list[Pod]) -> int:
    slots = system.slots(pool)
    deleted = 0
    for action in orphaned_pods(pods, slots.snapshot()):
        if isinstance(action, DeletePod):
            slots.drain(action.pod.name)
            system.backends[kind].delete(action.pod)
            log.info("pod deleted", pool=pool, pod=action.pod.name, why=action.reason)
            deleted += 1
        else:
            slots.drain(action.agent)
    return deleted
