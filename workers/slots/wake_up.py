"""A message to the control plane that is sent once, however many processes have a reason to send it."""

import secrets
from typing import Any

import redis

from workers.slots.keys import PoolKeys
from workers.slots.records import text


class WakeUp:
    """The message that asks for one job of one pool."""

    def __init__(self, client: redis.Redis, pool: str, job: str) -> None:
        self._client = client
        self._key = PoolKeys(pool).wake_up(job)

    def claim(self, seconds: float) -> bool:
        """Claim to send the message; False where one is under way, which counts as lost after ``seconds``."""
        asking = secrets.token_hex(8)
        # A call that is repeated, since its reply was lost, finds what it has set.
        found: Any = self._client.set(self._key, asking, nx=True, get=True, px=round(seconds * 1000))
        return found is None or text(found) == asking

    def received(self) -> None:
        """Say, before the job is begun, that what happens from now on needs another message."""
        self._client.delete(self._key)
