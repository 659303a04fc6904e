"""What people ask of a pool's size takes its turn with the pool's cycles, so that neither undoes the other half-way."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from workers.protocol import names
from workers.protocol.errors import Unavailable
from workers.services.system import System

LOCK_TTL = 120.0
_FIRST_PAUSE = 0.05


@contextmanager
def pool_lock(system: System, pool: str, *, wait: float = 60.0) -> Iterator[None]:
    """Hold the lock of the pool's cycle. Raises :class:`Unavailable` where it is not free within ``wait`` seconds.

    What takes long calls :func:`~workers.slots.locks.renew_lock` before it changes anything, as every change of pods
    does; :class:`LockLost` ends it where the lock has been lost.
    """
    lock, owner = system.lock(pool, "cycle"), uuid.uuid4().hex
    until, pause = time.monotonic() + wait, _FIRST_PAUSE
    while not lock.request(owner, LOCK_TTL):
        if time.monotonic() + pause > until:
            raise Unavailable(f"The pool {pool!r} is still being looked at after {wait:g} s: try again.")
        time.sleep(pause)
        pause *= 2  # each request makes the holder go round once more, and has to come after that
    wanted = True
    try:
        with lock.held(owner, LOCK_TTL):
            yield
        wanted = not lock.finish(owner, LOCK_TTL)
    finally:
        if wanted:
            lock.drop(owner)
            system.celery.send_task(names.CYCLE, args=[pool])
