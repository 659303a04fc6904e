"""Pods of pools that were deleted: nobody's cycle looks at them any more, so one look a round is for them."""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter

import structlog

from workers.core.pods import Pod
from workers.core.reconcile import DeletePod, orphaned_pods
from workers.protocol.errors import TerraslotError
from workers.services.system import System
from workers.store import pools

log = structlog.get_logger(__name__)


def sweep(system: System) -> int:
    """Delete the pods of deleted pools that hold nothing, drain the others; return how many were deleted.

    A backend that can't be asked stops no other.
    """
    known = _pools(system)
    deleted = 0
    for kind, backend in system.backends.items():
        try:
            listed = backend.orphaned_pods(known)
            # Only now, for a pool is there before its pods: one that was created during the look is not unknown.
            there = _pools(system) if listed else set()
            found = sorted((pod for pod in listed if pod.pool not in there), key=attrgetter("pool"))
            for pool, pods in groupby(found, key=attrgetter("pool")):
                deleted += _end(system, kind, pool, list(pods))
        except TerraslotError as error:
            log.warning("orphaned pods not looked for", type=kind, why=str(error))
    return deleted


def _pools(system: System) -> set[str]:
    with system.database.read() as session:
        return {spec.name for spec in pools.all(session)}


def _end(system: System, kind: str, pool: str, pods: list[Pod]) -> int:
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
