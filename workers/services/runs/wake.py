"""Messages that ask for what can't wait for beat: a control worker's dispatch of a pool, a cluster worker's look at it.

They are no calls: the report reader makes no orders, for it has neither the keys that encrypt their variables nor a way
to the cluster, and a run's submission does not wait for a cluster.
"""

import random

from workers.protocol import names
from workers.services.system import System
from workers.store import workspace_queue
from workers.store.models import Run

# Seconds after which a message that was not received counts as lost. Beat's own comes every ten seconds.
_LOST_AFTER = 1.0
_LOOK_LOST_AFTER = 10.0
# Seconds from a run that found no slot to the look at its pool: those that come together are seen together, and the
# looks of many pools do not come together.
_GATHER = (0.1, 0.3)


def request_dispatch(system: System, pool: str) -> None:
    """Let a control worker dispatch a pool in which a slot is free, where a run waits for one.

    Nothing where one is asked to already and has not begun. A run that comes later than this looks finds the slot by
    itself: so the slot has to be free before.
    """
    with system.database.read() as session:
        if not workspace_queue.any_runnable(session, pool):
            return
    if system.wake_up(pool, "dispatch").claim(_LOST_AFTER) is not None:
        system.celery.send_task(names.DISPATCH, args=[pool], ignore_result=True)


def request_agents(system: System, pool: str) -> None:
    """Let a cluster worker look at a pool in which a run may have found no slot, instead of at the next tick.

    A thousand such runs ask for one look a second.
    """
    if system.slots(pool).stats().free_apply:  # which a run of any kind can take
        return
    pause = system.wake_up(pool, "scale").claim(_LOOK_LOST_AFTER)
    if pause is not None:
        countdown = pause + random.uniform(*_GATHER)  # noqa: S311 - nothing depends on its being unknown
        system.celery.send_task(names.SCALE, args=[pool], countdown=countdown, ignore_result=True)


def request_start(system: System, pool: str) -> None:
    """Let the runs of a pool that may start now be given slots, or agents where there are none."""
    request_dispatch(system, pool)
    request_agents(system, pool)


def freed(system: System, ended: Run | None) -> Run | None:
    """Let the slot of a run that has ended be given to the next; return the run. None stands for one that has not."""
    if ended is not None:
        request_dispatch(system, ended.pool)
    return ended
