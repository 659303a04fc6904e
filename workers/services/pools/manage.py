"""Create, update and apply pools.

What the cluster refuses for good is an error when the pool is saved. A cluster that does not answer, has no room or
gives no permission does not keep a pool from being saved: the pool's status says it, and every cycle tries again.
"""

from typing import Any

from workers.core.errors import NameTaken, UnknownPool
from workers.protocol import names
from workers.protocol.errors import InvalidRequest, Unavailable
from workers.protocol.sources import SensitiveVariables
from workers.services.pool_state import set_status
from workers.services.secrets import variables
from workers.services.system import System
from workers.specs import Applied
from workers.specs.pools import PoolSpec
from workers.store import pools
from workers.store.secrets import Owner


def ensure(system: System, spec: PoolSpec) -> PoolSpec:
    """Create a pool, or return the one of that name as it is."""
    try:
        with system.database.begin() as session:
            pools.save(session, spec, system.now())
    except NameTaken:
        return system.pool(spec.name)
    return spec


def create(system: System, spec: PoolSpec, given: SensitiveVariables | None = None) -> None:
    """Save a new pool with the sensitive variables that are given, and enqueue its cycle.

    Raises :class:`NameTaken`, and :class:`PodRefused` or :class:`InvalidRequest` where its cluster refuses such pods.
    """
    variables.expect_known(spec.name, spec.sensitive, ())
    problem = _check(system, spec)
    with system.database.begin() as session:
        pools.save(session, spec, system.now())
        if given and given.names:
            spec = variables.store(system, session, Owner.POOL, spec, variables.Change(given))
            pools.update(session, spec, system.now())
    _saved(system, spec.name, problem)


def update(system: System, spec: PoolSpec, change: variables.Change | None = None) -> None:
    """Replace a pool's configuration; pods that exist keep theirs.

    Its sensitive variables, its Deployment and whether it drains stay: each is changed by an operation of its own, and
    a file that is applied again names none of them. Raises :class:`UnknownPool`, and what :func:`create` raises.
    """
    _over(system.pool(spec.name), spec)
    problem = _check(system, spec)
    with system.database.begin() as session:
        spec = _over(pools.get(session, spec.name), spec)
        pools.update(session, variables.store(system, session, Owner.POOL, spec, change), system.now())
    _saved(system, spec.name, problem)


def apply(system: System, spec: PoolSpec) -> Applied:
    """Create a pool, or make it what the configuration says. Raises as :func:`create` and :func:`update`."""
    try:
        old = system.pool(spec.name)
    except UnknownPool:
        create(system, spec)
        return Applied.CREATED
    if _over(old, spec) == old:
        return Applied.UNCHANGED
    update(system, spec)
    return Applied.CHANGED


def _over(old: PoolSpec, spec: PoolSpec) -> PoolSpec:
    """Return a new configuration of a pool, with the old one's values of what operations of their own change."""
    if spec.type != old.type:
        raise InvalidRequest(
            f"The pool {spec.name!r} is of type {old.type!r}, and stays so: create another one of type {spec.type!r}."
        )
    kept: dict[str, Any] = {"draining": old.draining}
    if spec.kubernetes is not None:
        update = {"deployment": old.deployment, "adopting": old.adopting}
        kept["kubernetes"] = spec.kubernetes.model_copy(update=update)
    return variables.kept(old, spec).model_copy(update=kept)


def _check(system: System, spec: PoolSpec) -> str | None:
    """Return why the cluster can't be asked about such pods. Raises where it refuses them."""
    try:
        system.pods(spec).check(spec)
    except Unavailable as error:
        return str(error)
    return None


def _saved(system: System, pool: str, problem: str | None) -> None:
    set_status(system, pool, problem)
    system.celery.send_task(names.CYCLE, args=[pool])
