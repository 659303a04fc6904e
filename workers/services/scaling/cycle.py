"""The cycle of a pool: reconcile, rotate its credentials, scale, dispatch. Beat sends one task for every pool."""

from collections.abc import Sequence

import structlog

from workers.core.pods import Pod, PodPhase
from workers.protocol import names
from workers.protocol.errors import TerraslotError
from workers.protocol.leases import AgentRecord
from workers.protocol.version import PROTOCOL
from workers.services.pool_lock import LOCK_TTL
from workers.services.pool_status import set_status
from workers.services.pools import adopt
from workers.services.runs.dispatch import dispatch
from workers.services.scaling.disruption import protect_pods
from workers.services.scaling.reconcile import reconcile_pods
from workers.services.scaling.scale import autoscale_pods
from workers.services.secrets.credentials import ensure_secret_for_pool
from workers.services.system import System
from workers.slots.locks import LockLost, renew_lock
from workers.store import pools

log = structlog.get_logger(__name__)

_DRAINS = "it drains, and no run is given to it"


def cycle(system: System, pool: str) -> bool:
    """Reconcile, scale and dispatch one pool; False where another process does (F5, F28).

    Raises :class:`Unavailable` where the cluster, Redis or the database can't be asked, and :class:`LockLost` where
    this took so long that another process may have the pool's lock; nothing is scaled then.
    """
    if not system.lock(pool, "cycle").work(lambda: _cycle(system, pool), LOCK_TTL):
        return False
    dispatch(system, pool)
    return True


def cycles(system: System) -> list[str]:
    """Send one cycle task for every pool, so that an error in one stops no other; return the pools.

    One more task deletes the pods of deleted pools.
    """
    interval = system.settings.cycle_seconds
    system.celery.send_task(names.SWEEP, expires=interval)
    return _for_every_pool(system, names.CYCLE, interval)


def dispatches(system: System) -> list[str]:
    """Send one dispatch task for every pool: the safety net for wake-ups that were lost."""
    return _for_every_pool(system, names.DISPATCH, system.settings.dispatch_seconds)


def _cycle(system: System, pool: str) -> None:
    with system.database.read() as session:
        spec = pools.get(session, pool)
    try:
        run_by_deployment = adopt.in_cycle(system, spec)
        snapshot = reconcile_pods(system, spec)
        agents = system.slots(pool).snapshot()
        protect_pods(system, spec, snapshot, agents)
        renew_lock()
        ensure_secret_for_pool(system, spec)
        renew_lock()
        if not run_by_deployment and not spec.draining:
            autoscale_pods(system, spec, snapshot)
    except LockLost:
        raise  # the process that has the lock now sets the status
    except TerraslotError as error:
        set_status(system, pool, str(error))
        raise
    set_status(system, pool, _pending(snapshot.pods) or (_DRAINS if spec.draining else _older(agents)))


def _pending(pods: Sequence[Pod]) -> str | None:
    """Return which pod waits for what, where the cluster says so."""
    waiting = (pod for pod in pods if pod.phase is PodPhase.PENDING and pod.reason and not pod.deleting)
    return next((f"the pod {pod.name} waits: {pod.reason}" for pod in waiting), None)


def _older(agents: Sequence[AgentRecord]) -> str | None:
    """Return that agents are of an older version, where some are."""
    older = [agent.name for agent in agents if agent.protocol < PROTOCOL]
    if not older:
        return None
    named = f"{older[0]} and {len(older) - 1} more" if len(older) > 1 else older[0]
    return f"agents of an older version, {named}, are replaced when idle; should new ones be older, update the image"


def _for_every_pool(system: System, task: str, interval: float) -> list[str]:
    with system.database.read() as session:
        names_of_pools = [spec.name for spec in pools.all(session)]
    for pool in names_of_pools:
        system.celery.send_task(task, args=[pool], expires=interval)
    return names_of_pools
