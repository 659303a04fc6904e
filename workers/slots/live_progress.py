"""How far the phase of a run has come, while it executes: the last that its agent has said, under the phase's token.

An agent may have put anything into its place: what is too long, of another phase, or no progress, is none.
"""

import redis
from pydantic import ValidationError

from workers.protocol.progress import MAX_LIVE_BYTES, Progress
from workers.slots.keys import PoolKeys
from workers.slots.redis_server import is_away

_KEPT_SECONDS = 3600  # after the last message: what an agent did last is asked for once it is known to be lost
_LONGEST = MAX_LIVE_BYTES + 200  # with the token


class LiveProgress:
    """The one of a run. All methods raise what redis-py raises."""

    def __init__(self, client: redis.Redis, pool: str, run: str) -> None:
        self._client = client
        self._key = PoolKeys(pool).progress(run)

    def tell(self, token: str, progress: Progress) -> None:
        """Say how far the phase under a token has come, in the place of what was said before."""
        content = progress.model_dump_json(exclude_defaults=True)
        self._client.set(self._key, f"{token} {content}", ex=_KEPT_SECONDS)

    def read(self, token: str) -> Progress | None:
        """Return how far the phase under a token has come; None where nothing was said of it."""
        try:  # bounded in the call that reads
            content: bytes = self._client.getrange(self._key, 0, _LONGEST)  # type: ignore[assignment]
        except redis.ResponseError as error:
            if is_away(error):
                raise
            return None  # a key of another type
        said_under, _, progress = content.partition(b" ")
        if len(content) > _LONGEST or said_under != token.encode():
            return None
        try:
            return Progress.model_validate_json(progress)
        except ValidationError:
            return None
