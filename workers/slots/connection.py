"""The connection to Redis or Valkey, and the Lua verbs that are called over it.

A verb is read once and called by its digest; its text is sent only to a server that does not know it yet.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError
from redis.retry import Retry

_LUA = Path(__file__).parent / "lua"

# Seconds. A server that hangs for longer counts as unreachable.
CONNECT_TIMEOUT = 5.0
ANSWER_TIMEOUT = 10.0
# The client repeats no call: a verb whose reply was lost may have acted; its caller decides whether to repeat it.
RETRY = Retry(NoBackoff(), 0)


def connect(url: str, credentials: redis.CredentialProvider | None = None) -> redis.Redis:
    """Return a client for ``url``, for threads; it connects when it is first used, and again after a failure.

    ``credentials`` are asked for at each connection, in place of those in the URL.
    """
    return redis.Redis.from_url(
        url,
        credential_provider=credentials,
        socket_connect_timeout=CONNECT_TIMEOUT,
        socket_timeout=ANSWER_TIMEOUT,
        health_check_interval=30,
        retry=RETRY,
    )


class Script:
    """One verb. ``redis-py``'s own Script does the same, for 2 us more a call."""

    __slots__ = ("_digest", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest().encode()

    @classmethod
    def load(cls, *names: str) -> Self:
        """Read a verb from its file. Several files become one text, in this order: the shared part first."""
        return cls("".join((_LUA / f"{name}.lua").read_text("utf-8") for name in names))

    def __call__(self, client: Any, keys: Sequence[bytes], *arguments: str | float) -> Any:
        """Run the verb in one step and return the server's reply. Raises redis-py's errors."""
        try:
            return client.execute_command("EVALSHA", self._digest, len(keys), *keys, *arguments)
        except NoScriptError:  # the server is new, or was restarted
            return client.execute_command("EVAL", self._text, len(keys), *keys, *arguments)
