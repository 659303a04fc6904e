"""A slot became free, or an agent came: let a control worker dispatch the pool.

That is a message and no call: the report reader makes no orders, for it has neither the keys that encrypt their
variables nor a way to the cluster.
"""

from workers.protocol import names
from workers.services.system import System
from workers.store.models import Run

# Seconds after which a message that was not received counts as lost. Beat's own comes every ten seconds.
_LOST_AFTER = 1.0


def request_dispatch(system: System, pool: str) -> None:
    """Let a control worker dispatch a pool; nothing where one is asked to already and has not begun."""
    if system.wake_up(pool, "dispatch").claim(_LOST_AFTER):
        system.celery.send_task(names.DISPATCH, args=[pool], ignore_result=True)


def request_cold_start(system: System, pool: str) -> None:
    """Let a cluster worker run the cycle of a pool that has no agent at all, instead of waiting for beat."""
    # The cold starts of a thousand runs ask for one cycle a second.
    if not system.slots(pool).stats().available and system.wake_up(pool, "cycle").claim(_LOST_AFTER):
        system.celery.send_task(names.CYCLE, args=[pool], ignore_result=True)


def freed(system: System, ended: Run | None) -> Run | None:
    """Let the slot of a run that has ended be given to the next; return the run. None stands for one that has not."""
    if ended is not None:
        request_dispatch(system, ended.pool)
    return ended
