"""One worker at a time for a job of a pool, without a wake-up lost.

A lock alone loses wake-ups: work that is asked for while the holder is past looking for it waits for the next tick.
So a request that meets a holder leaves a rerun flag, and the holder is done only when, in one step with unlocking, no
flag is there: :meth:`PoolLock.work` is that loop.

A holder that dies is replaced ``LOCK_TTL`` seconds later, by the next request. One that lives has its lock renewed by a
thread, however slow what it calls is. It calls :func:`renew_lock` before each change nevertheless: a process that was
frozen has lost its lock, and changes nothing more then.

Requests may come faster than rounds end. So a holder does a few rounds at most, and says what is left undone.
"""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import redis

from workers.protocol.errors import TerraslotError
from workers.slots.connection import Script
from workers.slots.keys import PoolKeys
from workers.slots.renewal import Renewal, Renewer

_LOCK = Script.load("lock")
_UNLOCK = Script.load("unlock")

# Seconds. A process that was killed keeps others from its job for so long.
LOCK_TTL = 15.0
# Renewals of a lock in its time to live: two may fail.
_RENEWALS = 3
# Seconds without a change after which work counts as stuck: to list pods may take 80, and to create some 25.
_PATIENCE = 120.0
_RENEWER = Renewer()

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

    def work(
        self,
        do: Callable[[], None],
        ttl: float = LOCK_TTL,
        *,
        rounds: int = 2,
        left: Callable[[], object] = lambda: None,
    ) -> bool:
        """Do a round, and another as long as one was asked for meanwhile; False where another process has the lock.

        ``rounds``: how many at most; ``left`` is called where one more was asked for. Raises what ``do`` raises, with
        the lock freed.
        """
        owner = uuid.uuid4().hex
        if not self.request(owner, ttl):
            return False
        try:
            for number in range(1, rounds + 1):
                with self.held(owner, ttl):
                    do()
                if number < rounds and self.finish(owner, ttl, number):
                    return True
        except BaseException:
            self.drop(owner)
            raise
        if self.drop(owner):
            left()
        return True

    @contextmanager
    def held(self, owner: str, ttl: float = LOCK_TTL) -> Iterator[None]:
        """Keep the owner's lock, and let :func:`renew_lock` renew it, wherever it is called inside."""
        kept = Renewal(lambda: self.renew(owner, ttl), ttl / _RENEWALS, _PATIENCE)

        def renew() -> bool:
            kept.progress()
            return self.renew(owner, ttl)

        outer = _renewals.set((*_renewals.get(), renew))
        try:
            with _RENEWER.renewing(kept):
                yield
        finally:
            _renewals.reset(outer)

    def request(self, owner: str, ttl: float = LOCK_TTL) -> bool:
        """Take the lock for ``ttl`` seconds; False where another owner has it, who finds the rerun flag."""
        return bool(_LOCK(self._client, self._keys, owner, round(ttl * 1000), ""))

    def renew(self, owner: str, ttl: float = LOCK_TTL) -> bool:
        """Hold the lock for ``ttl`` seconds from now; False where it is not the owner's any more."""
        return bool(_LOCK(self._client, self._keys, owner, round(ttl * 1000), "renew"))

    def finish(self, owner: str, ttl: float = LOCK_TTL, number: int = 1) -> bool:
        """End a round by its number. True: the lock is free. False: it is kept for a round that was asked for."""
        return bool(_UNLOCK(self._client, self._keys, owner, round(ttl * 1000), number))

    def drop(self, owner: str) -> bool:
        """Free the lock; return whether a round was asked for that is left to the next request."""
        return not _UNLOCK(self._client, self._keys, owner, 0, 0)
