"""Pools as people manage them.

What a pool's cluster refuses for good is an error when the pool is saved. What can't be known then, since the cluster
does not answer, has no room or gives no permission, does not keep a pool from being saved: its status says it, and
every cycle tries again.
"""

from __future__ import annotations

from enum import StrEnum

from workers.core.errors import NameTaken, UnknownPool
from workers.protocol import names
from workers.protocol.errors import InvalidRequest, Unavailable
from workers.protocol.sources import SensitiveVariables
from workers.services.pool_status import set_status
from workers.services.secrets import variables
from workers.services.secrets.variables import Change
from workers.services.system import System
from workers.specs.pools import PoolSpec
from workers.store import pools
from workers.store.secrets import Owner


class Outcome(StrEnum):
    """What applying a configuration has done."""

    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"


def ensure(system: System, spec: PoolSpec) -> PoolSpec:
    """Create a pool, or return the one of that name as it is."""
    try:
        with system.database.begin() as session:
            pools.save(session, spec, system.now())
    except NameTaken:
        return get(system, spec.name)
    return spec


def create(system: System, spec: PoolSpec, given: SensitiveVariables | None = None) -> None:
    """Save a new pool with the sensitive variables that are given, and have it looked at now.

    Raises :class:`NameTaken`, and what its cluster has against such pods: :class:`PodRefused` or
    :class:`InvalidRequest`.
    """
    variables.expect_no_other(spec.name, spec.sensitive, ())
    problem = _tried_out(system, spec)
    with system.database.begin() as session:
        pools.save(session, spec, system.now())
        kept = variables.change(system, session, Owner.POOL, spec.name, Change(given or SensitiveVariables()))
        if kept:
            pools.update(session, spec.model_copy(update={"sensitive": kept}), system.now())
    set_status(system, spec.name, problem)
    system.celery.send_task(names.CYCLE, args=[spec.name])


def update(system: System, spec: PoolSpec, change: Change | None = None) -> None:
    """Replace a pool's configuration; pods that exist keep theirs.

    Whether it drains, which Deployment runs it and what its sensitive variables are stays: each is changed by an
    operation of its own, of which a file that is applied again knows nothing. Raises :class:`UnknownPool`, and what
    :func:`create` raises.
    """
    _over(get(system, spec.name), spec)
    problem = _tried_out(system, spec)
    with system.database.begin() as session:
        spec = _over(pools.get(session, spec.name), spec)
        if change:
            kept = variables.change(system, session, Owner.POOL, spec.name, change)
            spec = spec.model_copy(update={"sensitive": kept})
        pools.update(session, spec, system.now())
    set_status(system, spec.name, problem)
    system.celery.send_task(names.CYCLE, args=[spec.name])


def apply(system: System, spec: PoolSpec) -> Outcome:
    """Create a pool, or make it what the configuration says. Raises as :func:`create` and :func:`update`."""
    try:
        old = get(system, spec.name)
    except UnknownPool:
        create(system, spec)
        return Outcome.CREATED
    if _over(old, spec) == old:
        return Outcome.UNCHANGED
    update(system, spec)
    return Outcome.CHANGED


def get(system: System, name: str) -> PoolSpec:
    """Return a pool's configuration. Raises :class:`UnknownPool`."""
    with system.database.read() as session:
        return pools.get(session, name)


def every(system: System) -> list[PoolSpec]:
    """Return all pools, by name."""
    with system.database.read() as session:
        return pools.all(session)


def _over(old: PoolSpec, spec: PoolSpec) -> PoolSpec:
    """Return a new configuration of a pool with what only operations change as it was."""
    if spec.type != old.type:
        raise InvalidRequest(
            f"The pool {spec.name!r} is of type {old.type!r}, and stays so: create another one of type {spec.type!r}."
        )
    variables.expect_no_other(spec.name, spec.sensitive, old.sensitive)
    kept = {"draining": old.draining, "sensitive": old.sensitive}
    if spec.kubernetes is None:
        return spec.model_copy(update=kept)
    pods = spec.kubernetes.model_copy(update={"deployment": old.deployment, "adopting": old.adopting})
    return spec.model_copy(update={**kept, "kubernetes": pods})


def _tried_out(system: System, spec: PoolSpec) -> str | None:
    """Return why nobody can say now whether such pods can be; raise why they can't."""
    try:
        system.pods(spec).check(spec)
    except Unavailable as error:
        return str(error)
    return None
