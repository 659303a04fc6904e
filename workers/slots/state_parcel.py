"""The state of a run on its way between agent and control plane: encrypted, bounded, and gone within an hour.

An agent may have put anything into its place: what is too long, or no text, is none.
"""

from typing import Any

import redis

from workers.protocol.states import MAX_ENCRYPTED
from workers.slots.keys import PoolKeys
from workers.slots.redis_server import is_away

_KEPT_SECONDS = 3600


class StateParcel:
    """The one of a run. All methods raise what redis-py raises."""

    def __init__(self, client: redis.Redis, pool: str, run: str) -> None:
        self._client = client
        self._key = PoolKeys(pool).state(run)

    def put(self, encrypted: str) -> None:
        """Send a state, in the place of an earlier one."""
        self._client.set(self._key, encrypted, ex=_KEPT_SECONDS)

    def prolong(self) -> bool:
        """Keep what was sent for another hour; False where there is nothing any more."""
        return bool(self._client.expire(self._key, _KEPT_SECONDS))

    def get(self) -> str | None:
        """Return the state; None where there is none."""
        content = self._client.get(self._key)
        return content.decode() if isinstance(content, bytes) and content.isascii() else None

    def take(self) -> str | None:
        """Return what an agent has sent; None where there is nothing that could be a state."""
        try:  # bounded in the call that reads: the agent may replace it between two
            content: Any = self._client.getrange(self._key, 0, MAX_ENCRYPTED)
        except redis.ResponseError as error:
            if is_away(error):
                raise
            return None  # a key of another type
        return content.decode() if 0 < len(content) <= MAX_ENCRYPTED and content.isascii() else None

    def remove(self) -> None:
        """End it, whatever is in its place."""
        self._client.delete(self._key)
