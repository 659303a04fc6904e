"""Pools as people manage them."""

from __future__ import annotations

from workers.core.errors import NameTaken
from workers.core.pools import PoolSpec
from workers.services.system import System
from workers.store import pools


def ensure(system: System, spec: PoolSpec) -> PoolSpec:
    """Create a pool, or return the one of that name as it is."""
    try:
        with system.database.begin() as session:
            pools.save(session, spec, system.now())
    except NameTaken:
        return get(system, spec.name)
    return spec


def get(system: System, name: str) -> PoolSpec:
    """Return a pool's configuration. Raises :class:`UnknownPool`."""
    with system.database.read() as session:
        return pools.get(session, name)


def every(system: System) -> list[PoolSpec]:
    """Return all pools, by name."""
    with system.database.read() as session:
        return pools.all(session)
