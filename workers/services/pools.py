"""Pools as people manage them.

What a pool's cluster refuses for good is an error when the pool is saved. What can't be known then, since the cluster
does not answer, has no room or gives no permission, does not keep a pool from being saved: its status says it, and
every cycle tries again.
"""

from __future__ import annotations

from workers.core import names
from workers.core.errors import NameTaken, Unavailable
from workers.core.pools import PoolSpec
from workers.services.system import System
from workers.store import pools

_NOW = "at the moment: "


def ensure(system: System, spec: PoolSpec) -> PoolSpec:
    """Create a pool, or return the one of that name as it is."""
    try:
        with system.database.begin() as session:
            pools.save(session, spec, system.now())
    except NameTaken:
        return get(system, spec.name)
    return spec


def create(system: System, spec: PoolSpec) -> None:
    """Save a new pool, and have it looked at now.

    Raises :class:`NameTaken`, and what its cluster has against such pods: :class:`PodRefused` or
    :class:`InvalidRequest`.
    """
    problem = _tried_out(system, spec)
    with system.database.begin() as session:
        pools.save(session, spec, system.now())
    say(system, spec.name, problem)
    system.celery.send_task(names.CYCLE, args=[spec.name])


def update(system: System, spec: PoolSpec) -> None:
    """Replace a pool's configuration; pods that exist keep theirs.

    Raises :class:`UnknownPool`, and what :func:`create` raises.
    """
    problem = _tried_out(system, spec)
    with system.database.begin() as session:
        pools.update(session, spec, system.now())
    say(system, spec.name, problem)
    system.celery.send_task(names.CYCLE, args=[spec.name])


def say(system: System, pool: str, problem: str | None) -> None:
    """Let a pool's status say what is wrong at the moment, and no longer than it is."""
    with system.database.read() as session:
        before = pools.status(session, pool)
    message = f"{_NOW}{problem}" if problem else None
    if message != before and (message or (before or "").startswith(_NOW)):
        with system.database.begin() as session:
            pools.set_status(session, pool, message, system.now())


def get(system: System, name: str) -> PoolSpec:
    """Return a pool's configuration. Raises :class:`UnknownPool`."""
    with system.database.read() as session:
        return pools.get(session, name)


def every(system: System) -> list[PoolSpec]:
    """Return all pools, by name."""
    with system.database.read() as session:
        return pools.all(session)


def _tried_out(system: System, spec: PoolSpec) -> str | None:
    """Return why nobody can say now whether such pods can be; raise why they can't."""
    try:
        system.pods(spec).check(spec)
    except Unavailable as error:
        return str(error)
    return None
