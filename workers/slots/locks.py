"""One worker at a time for a job of a pool, without a wake-up lost.

A lock alone loses wake-ups: work that is asked for while the holder is past looking for it waits for the next tick.
So a request that meets a holder leaves a rerun flag, and the holder is done only when, in one step with unlocking, no
flag is there: :meth:`PoolLock.work` is that loop.

A holder that dies is replaced after ``ttl`` seconds, by the next request. One that is only slow calls
:func:`renew_lock` before each change: that renews what it holds, or raises where another process has the lock by now.
So ``ttl`` must outlast one change, not a round.
"""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import redis

from workers.protocol.errors import TerraslotError
from workers.slots.connection import Script
from workers.slots.keys import PoolKeys

_LOCK = Script.load("lock")
_UNLOCK = Script.load("unlock")

# What renews each lock that the caller works under, the outermost first.
_renewals: ContextVar[tuple[Callable[[], bool], ...]] = ContextVar("renewals", default=())


class LockLost(TerraslotError):
    """Work on a pool outlasted its lock, so that another process may have done it meanwhile."""


def renew_lock() -> None:
    """Renew every lock that this is done under. Raises :class:`LockLost` where one is not held any more."""
    if not all(renew() for renew in _renewals.get()):
        raise LockLost(
            "The pool's lock expired during this work, and another process may hold it: nothing more changed."
        )


class PoolLock:
    """The lock of one job of one pool. An ``owner`` is a unique name, for example a task's id."""

    def __init__(self, client: redis.Redis, pool: str, job: str) -> None:
        self._client = client
        self._keys = PoolKeys(pool).lock(job)

    def work(self, do: Callable[[], None], ttl: float) -> bool:
        """Do a round, and another as long as one was asked for meanwhile; False where another process has the lock.

        Raises what ``do`` raises, with the lock freed.
        """
        owner = uuid.uuid4().hex
        if not self.request(owner, ttl):
            return False
        try:
            with self.held(owner, ttl):
                do()
                while not self.finish(owner, ttl):
                    do()
        except BaseException:
            self.drop(owner)
            raise
        return True

    @contextmanager
    def held(self, owner: str, ttl: float) -> Iterator[None]:
        """Let :func:`renew_lock` renew the owner's lock, wherever it is called inside."""
        outer = _renewals.set((*_renewals.get(), lambda: self.renew(owner, ttl)))
        try:
            yield
        finally:
            _renewals.reset(outer)

    def request(self, owner: str, ttl: float) -> bool:
        """Take the lock for ``ttl`` seconds; False where another owner has it, who finds the rerun flag."""
        return bool(_LOCK(self._client, self._keys, owner, round(ttl * 1000)))

    def renew(self, owner: str, ttl: float) -> bool:
        """Hold the lock for ``ttl`` seconds from now; False where it is not the owner's any more."""
        return bool(_LOCK(self._client, self._keys[:1], owner, round(ttl * 1000)))

    def finish(self, owner: str, ttl: float) -> bool:
        """End a round. True: the lock is free. False: another round was asked for, and the lock is kept for it."""
        return bool(_UNLOCK(self._client, self._keys, owner, round(ttl * 1000)))

    def drop(self, owner: str) -> None:
        """Free the lock after an error, whatever was asked for; the next request begins anew."""
        _UNLOCK(self._client, self._keys, owner, 0)
