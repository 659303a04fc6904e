"""The end of a pool: nothing uses it, its pods end, its Redis users, its Secret and its configuration go.

Whatever stops it half-way leaves a pool that is there, which may be deleted again, or is filled up by its next cycle.
Pods of a cluster that does not answer don't keep a pool from being deleted: the sweep that follows every round of
cycles ends what has no pool.
"""

from __future__ import annotations

import secrets
import time

import structlog

from workers.core.errors import PodRefused, StillInUse
from workers.protocol.errors import TerraslotError, Unavailable
from workers.services.formatting import counted
from workers.services.pod_snapshot import PodSnapshot
from workers.services.pool_lock import pool_lock
from workers.services.pools.drain import LOOK_SECONDS, held
from workers.services.pools.manage import get as get_pool
from workers.services.secrets import credentials
from workers.services.system import System
from workers.slots.locks import renew_lock
from workers.specs.pools import PoolSpec
from workers.store import pools

log = structlog.get_logger(__name__)

ENDING_SECONDS = 30.0


def delete_pool(system: System, name: str, *, drain: bool = False, timeout: float | None = None) -> int:
    """Delete a pool; return how many of its pods are still ending.

    Raises :class:`UnknownPool`, and :class:`StillInUse` while a workspace names it or a run of it is not over; with
    ``drain`` only if such a run is not over within ``timeout`` seconds. No workspace, so no run can come: those that
    wait are still given slots.
    """
    with system.database.read() as session:
        pools.get(session, name)
        pools.expect_no_workspace(session, name)
    until = None if timeout is None else time.monotonic() + timeout
    while in_use := _use(system, name):
        stuck = not held(system, name) and get_pool(system, name).draining
        if not drain or stuck or (until is not None and time.monotonic() > until):
            raise in_use
        time.sleep(LOOK_SECONDS)
    with pool_lock(system, name):
        return _delete(system, get_pool(system, name))


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
        left = _end_pods(system, spec)
        renew_lock()
        credentials.forget_pool(system, spec)
        with system.database.begin() as session:
            pools.delete(session, spec.name)
    except TerraslotError:
        for name in claimed:
            slots.give_back(name, claim)
        raise
    for agent in slots.snapshot():
        slots.deregister(agent.name)
    return left


def _end_pods(system: System, spec: PoolSpec) -> int:
    """Delete every pod, and give them a moment to go; return how many are left, as far as anybody knows."""
    try:
        listing = PodSnapshot(system, spec)
    except Unavailable as error:
        log.warning("pods not deleted", pool=spec.name, why=str(error))
        return system.slots(spec.name).stats().agents
    if any(pod.controlled for pod in listing.pods):
        raise StillInUse(
            f"The pool {spec.name!r} can't be deleted: the Deployment {spec.deployment!r} would create its pods anew. "
            "Delete that one first, or take it over."
        )
    try:
        for pod in listing.pods:
            if not pod.deleting:
                listing.delete(pod)
        until = time.monotonic() + ENDING_SECONDS
        while (left := system.pods(spec).list(spec.name)) and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)
    except (Unavailable, PodRefused) as error:
        log.warning("pods not deleted", pool=spec.name, why=str(error))
        return len(listing.pods)
    return len(left)
