"""Hold the lock of a pool's cycle while a person changes its pods: then no cycle runs in between."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from workers.protocol import names
from workers.protocol.errors import Unavailable
from workers.services.system import System
from workers.specs.pools import PoolSpec

# Seconds. Longer than one change may take, since the lock is renewed before each: a batch of creations side by side has
# 25 s for its answers. The lock of a process that died is free after this time.
LOCK_TTL = 120.0
_FIRST_PAUSE = 0.05


@contextmanager
def pool_lock(system: System, pool: str, *, wait: float = 60.0) -> Iterator[PoolSpec]:
    """Hold the lock of the pool's cycle; yield the pool's configuration as it is then.

    Raises :class:`UnknownPool`, and :class:`Unavailable` where the lock is not free within ``wait`` seconds. What takes
    long calls :func:`~workers.slots.locks.renew_lock` before it changes anything, as every change of pods does;
    :class:`LockLost` ends it where the lock has been lost.
    """
    system.pool(pool)
    lock, owner = system.lock(pool, "cycle"), uuid.uuid4().hex
    until, pause = time.monotonic() + wait, _FIRST_PAUSE
    while not lock.request(owner, LOCK_TTL):
        if time.monotonic() + pause > until:
            raise Unavailable(f"The cycle of the pool {pool!r} still runs after {wait:g} s: try again.")
        time.sleep(pause)
        pause *= 2  # each request makes the holder do one more round, and has to come after that
    rerun = True
    try:
        with lock.held(owner, LOCK_TTL):
            yield system.pool(pool)
        rerun = not lock.finish(owner, LOCK_TTL)
    finally:
        if rerun:
            lock.drop(owner)
            system.celery.send_task(names.CYCLE, args=[pool])
