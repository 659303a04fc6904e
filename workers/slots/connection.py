"""The connection to Redis or Valkey."""

from __future__ import annotations

import redis

# Seconds. A server that hangs is a server that is away; nobody waits for it longer than that.
CONNECT_TIMEOUT = 5.0
ANSWER_TIMEOUT = 10.0


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
    )
