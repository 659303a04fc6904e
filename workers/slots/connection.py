"""The connection to Redis or Valkey."""

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

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
