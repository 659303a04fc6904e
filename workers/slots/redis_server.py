"""The Redis or Valkey server: its version and settings, and its errors as sentences."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from redis import exceptions
from redis.exceptions import RedisError, ResponseError

from workers.protocol.errors import Unavailable
from workers.protocol.redis_address import RedisAddress

# What to do about a server that does not answer, where it is one of this machine.
START = "Start the system with `terraslot up`"
# Replies to every command until the server, its role or its users are repaired.
_AWAY = (
    exceptions.AskError,
    exceptions.ClusterDownError,
    exceptions.ConnectionError,
    exceptions.InvalidResponse,
    exceptions.NoPermissionError,
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
    exceptions.TimeoutError,
    exceptions.TryAgainError,
)
# The same where redis-py has no class for it, or where an old server wraps the error of a script.
_AWAY_WORDS = re.compile(r"(?:^|-)(?:BUSY|LOADING|MASTERDOWN|MISCONF|NOPERM|NOREPLICAS|OOM|READONLY) ")


@dataclass(frozen=True, slots=True)
class Server:
    """What a server says of itself. ``persists``: None where it does not tell; ``evicts``: it may drop keys.

    ``cluster``: it is one of a Redis Cluster. ``used`` and ``limit``: bytes of memory, 0 for no limit.
    """

    kind: str
    version: tuple[int, ...]
    persists: bool | None
    evicts: bool
    cluster: bool
    used: int
    limit: int


def describe(client: redis.Redis) -> Server:
    """Ask a server what it is. Raises ``RedisError`` where it can't be asked."""
    info: dict[str, Any] = client.info()
    version = str(info.get("valkey_version") or info["redis_version"])
    return Server(
        kind="Valkey" if "valkey_version" in info else "Redis",
        version=tuple(int(part) for part in version.split(".") if part.isdigit()),
        persists=True if info.get("aof_enabled") else _takes_snapshots(client),
        evicts=bool(info.get("maxmemory")) and info.get("maxmemory_policy") != "noeviction",
        cluster=bool(info.get("cluster_enabled")),
        used=int(info.get("used_memory", 0)),
        limit=int(info.get("maxmemory", 0)),
    )


def memory(client: redis.Redis) -> tuple[int, int]:
    """Return how many bytes a server uses, and how many it may use, 0 for any number. Raises ``RedisError``."""
    info: dict[str, Any] = client.info("memory")
    return int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))


def lengths(client: redis.Redis, queues: Mapping[str, Sequence[str | bytes]]) -> dict[str, int]:
    """Return how many messages wait in each of these queues, whose keys are given. Raises ``RedisError``."""
    with client.pipeline(transaction=False) as pipeline:
        for keys in queues.values():
            for key in keys:
                pipeline.llen(key)
        found = iter(pipeline.execute())
    return {name: sum(next(found) for _ in keys) for name, keys in queues.items()}


def clock(client: redis.Redis) -> float:
    """Return a server's time in seconds since the epoch."""
    seconds, microseconds = client.time()
    return seconds + microseconds / 1e6


def unavailable(error: BaseException | None, address: RedisAddress, advice: str = START) -> Unavailable | None:
    """Return what a person is told about an error of the Redis at ``address``, with what to do; None if it is none."""
    if not isinstance(error, RedisError):
        return None
    words = str(error).rstrip(".").partition("\n")[0]
    return Unavailable(f"Redis at {address.public} can't be used: {words}. {advice}, or check TERRASLOT_REDIS_URL.")


def is_away(error: BaseException) -> bool:
    """Whether it was the server, or the way to it, that failed: not one key, one record or one script of ours."""
    return isinstance(error, _AWAY) or (isinstance(error, ResponseError) and bool(_AWAY_WORDS.search(str(error))))


def _takes_snapshots(client: redis.Redis) -> bool | None:
    try:
        answer: dict[str, str] = client.config_get("save")  # type: ignore[assignment]
    except ResponseError:  # hosted servers keep their configuration to themselves
        return None
    return bool(answer.get("save"))
