"""Orphaned pods: their pool was deleted, so that no cycle reconciles them. One task a round deletes them."""

import structlog

from workers.cluster.backend import PodBackend
from workers.core.pods import Pod
from workers.core.reconcile import DeletePod, orphaned
from workers.protocol.errors import TerraslotError
from workers.services.system import System
from workers.store import pools

log = structlog.get_logger(__name__)


def sweep(system: System) -> int:
    """Delete the orphaned pods that hold nothing, drain the others; return how many were deleted.

    The pods of a backend that can't be asked stay until the next round.
    """
    known, deleted = _pools(system), 0
    for kind, backend in system.backends.items():
        try:
            pods = backend.orphaned_pods(known)
            # A pool is stored before its pods exist: one that was created during the look is found now.
            current = _pools(system) if pods else set()
            deleted += sum(_sweep(system, backend, pod) for pod in pods if pod.pool not in current)
        except TerraslotError as error:
            log.warning("orphaned pods not deleted", type=kind, why=str(error))
    return deleted


def _sweep(system: System, backend: PodBackend, pod: Pod) -> bool:
    slots = system.slots(pod.pool)
    action = orphaned(pod, slots.agent(pod.name))
    if action is not None:
        slots.drain(pod.name)
    if isinstance(action, DeletePod):
        backend.delete(pod)
        log.info("pod deleted", pool=pod.pool, pod=pod.name, why=action.reason)
    return isinstance(action, DeletePod)


def _pools(system: System) -> set[str]:
    with system.database.read() as session:
        return {spec.name for spec in pools.all(session)}
