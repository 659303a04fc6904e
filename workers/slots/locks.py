"""One worker at a time for a job of a pool, without a wake-up lost.

A lock alone loses wake-ups: work that is asked for while the holder is past looking for it waits for the next tick.
So a request leaves a mark, and the holder is done only when, in one step with letting go, no mark is there:
:meth:`PoolLock.work` is that loop.

A holder that dies is replaced after ``ttl`` seconds, by the next request. One that is only slow calls
:func:`renew_lock` before whatever it changes: that renews what it holds, or tells it that somebody else is at it by now. So ``ttl`` must
outlast one change, not a round.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import redis

from workers.protocol.errors import TerraslotError
from workers.slots.keys import PoolKeys
from workers.slots.scripts import Script

_REQUEST = Script.load("lock_request")
_FINISH = Script.load("lock_finish")
_RENEW = Script.load("lock_renew")
_DROP = Script.load("lock_drop")

# What renews each lock that the caller works under, the outermost first.
_renewals: ContextVar[tuple[Callable[[], bool], ...]] = ContextVar("renewals", default=())


def renew_lock() -> None:
    """Renew every lock that this is done under. Raises :class:`LockLost` where one is not held any more."""
    if not all(renew() for renew in _renewals.get()):
        raise LockLost("This took so long that somebody else may have done it meanwhile: nothing more was changed.")


class LockLost(TerraslotError):
    """Work on a pool took longer than its lock lived, so that somebody else may have done it meanwhile."""


class PoolLock:
    """The lock of one job of one pool. An ``owner`` is a name that nobody else uses, for example a task's id."""

    def __init__(self, client: redis.Redis, pool: str, job: str) -> None:
        self._client = client
        self._keys = PoolKeys(pool).lock(job)

    def work(self, do: Callable[[], None], ttl: float) -> bool:
        """Do a round, and another as long as somebody asked meanwhile; False where somebody else is at it.

        Raises what ``do`` raises, having let go.
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
        """Ask for work to be done. True: the lock is the owner's, who does it. False: the holder will see the wish."""
        return bool(_REQUEST(self._client, self._keys, owner, round(ttl * 1000)))

    def finish(self, owner: str, ttl: float) -> bool:
        """End a round. True: done, and the lock is free. False: work was asked for meanwhile, do another round."""
        return bool(_FINISH(self._client, self._keys, owner, round(ttl * 1000)))

    def renew(self, owner: str, ttl: float) -> bool:
        """Hold the lock for ``ttl`` seconds from now; False where it is not the owner's any more."""
        return bool(_RENEW(self._client, self._keys[:1], owner, round(ttl * 1000)))

    def drop(self, owner: str) -> None:
        """Let go after an error, whatever was asked for; the next request begins anew."""
        _DROP(self._client, self._keys[:1], owner)
