"""A message to the control plane that is sent once, however many processes have a reason to send it."""

import secrets

import redis

from workers.slots.connection import Script
from workers.slots.keys import PoolKeys

_CLAIM = Script.load("wake_up")
_RECEIVED = "received"


class WakeUp:
    """The message that asks for one job of one pool."""

    def __init__(self, client: redis.Redis, pool: str, job: str) -> None:
        self._client = client
        self._key = PoolKeys(pool).wake_up(job)

    def claim(self, seconds: float) -> float | None:
        """Claim to send the message; return in how many seconds the job may be done.

        None where a message is under way. It counts as lost so many ``seconds`` after the job may be done.
        """
        pause: int = _CLAIM(self._client, [self._key], secrets.token_hex(8), round(seconds * 1000))
        return None if pause < 0 else pause / 1000

    def received(self, pause: float = 0.0) -> None:
        """Say, before the job is begun, that what happens from now on needs another message.

        ``pause``: seconds before which the job is not to be done again.
        """
        if pause:
            self._client.set(self._key, _RECEIVED, px=round(pause * 1000))
        else:
            self._client.delete(self._key)
