"""Delete a pool: nothing uses it, then its pods, its Redis users, its Secret and its configuration are deleted.

A deletion that stops half-way leaves a pool that can be deleted again; otherwise its next cycle creates its pods anew.
A cluster that does not answer does not keep its pools from being deleted: the sweep of orphaned pods that follows every
round of cycles deletes what is left.
"""

import secrets
import time

import structlog

from workers.core.errors import NotPermitted, PodRefused, StillInUse
from workers.protocol.errors import TerraslotError, Unavailable
from workers.services.formatting import counted
from workers.services.pool_state import PodSnapshot, pool_lock
from workers.services.pools.drain import POLL_SECONDS, held
from workers.services.secrets import credentials
from workers.services.system import System
from workers.slots import order_queue
from workers.slots.locks import renew_lock
from workers.slots.report_queue import ReportQueue
from workers.specs.pools import PoolSpec
from workers.store import pools

log = structlog.get_logger(__name__)

# How long a deletion waits for pods to end, in seconds: that of an idle agent needs a few.
ENDING_SECONDS = 30.0


def delete_pool(system: System, name: str, *, drain: bool = False, timeout: float | None = None) -> int:
    """Delete a pool; return how many of its pods are still ending.

    Raises :class:`UnknownPool`, and :class:`StillInUse` while a workspace names it or a run of it is not over; with
    ``drain`` only if such a run is not over within ``timeout`` seconds. Without a workspace no run can be added; those
    that wait still get slots.
    """
    with system.database.read() as session:
        pools.get(session, name)
        pools.expect_no_workspace(session, name)
    until = None if timeout is None else time.monotonic() + timeout
    while in_use := _use(system, name):
        stuck = not held(system, name) and system.pool(name).draining
        if not drain or stuck or (until is not None and time.monotonic() > until):
            raise in_use
        time.sleep(POLL_SECONDS)
    with pool_lock(system, name) as spec:
        return _delete(system, spec)


def _use(system: System, name: str) -> StillInUse | None:
    try:
        with system.database.read() as session:
            pools.expect_no_run(session, name)
    except StillInUse as error:
        return error
    slots = held(system, name)
    what = counted(slots, "of its slots is held", "of its slots are held")
    return StillInUse(f"The pool {name!r} can't be deleted: {what}.") if slots else None


def _delete(system: System, spec: PoolSpec) -> int:
    slots = system.slots(spec.name)
    claim = secrets.token_hex(8)
    claimed = slots.claim_idle(slots.stats().agents, claim)
    try:
        if in_use := _use(system, spec.name):
            raise in_use
        left = _delete_pods(system, spec)
        renew_lock()
        credentials.purge(system, spec)
        _forget_deployment(system, spec)
        with system.database.begin() as session:
            pools.delete(session, spec.name)
    except TerraslotError:
        for name in claimed:
            slots.give_back(name, claim)
        raise
    for agent in slots.snapshot():
        order_queue.remove(system.broker, spec.name, agent.name)
    ReportQueue(system.redis, spec.name).remove()
    slots.remove()
    return left


def _forget_deployment(system: System, spec: PoolSpec) -> None:
    try:
        if deployments := system.pods(spec).deployments:
            deployments.forget(spec.name)
    except NotPermitted:
        pass  # as where no Deployment may be adopted
    except TerraslotError as error:
        log.warning("adopted deployment not forgotten", pool=spec.name, why=str(error))


def _delete_pods(system: System, spec: PoolSpec) -> int:
    """Delete every pod, and wait a moment until they have ended; return how many are left, or may be."""
    try:
        snapshot = PodSnapshot(system, spec)
    except Unavailable as error:
        log.warning("pods not deleted", pool=spec.name, why=str(error))
        return system.slots(spec.name).stats().agents
    if any(pod.controlled for pod in snapshot.pods):
        raise StillInUse(
            f"The pool {spec.name!r} can't be deleted: the Deployment {spec.deployment!r} would create its pods anew. "
            "Delete that one first, or adopt it."
        )
    try:
        for pod in snapshot.pods:
            if not pod.deleting:
                snapshot.delete(pod)
        until = time.monotonic() + ENDING_SECONDS
        while (left := system.pods(spec).list(spec.name)) and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
    except (Unavailable, PodRefused) as error:
        log.warning("pods not deleted", pool=spec.name, why=str(error))
        return len(snapshot.pods)
    return len(left)
