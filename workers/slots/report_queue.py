"""The reports of a pool's agents on their way to the control plane: one queue for each pool.

Whoever has a pool's credential writes into its queue what he likes: it is data, is bounded where it is read, and
delays no other pool's. What wakes the reader is published on a channel of the queue's name; the server bounds what it
keeps of that for a slow reader, and none is needed: the queue is the truth.

Agents before 0.2 put Celery messages into one queue of all pools; only what is in them is read, as data.
"""

import base64
import json
import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import redis

from workers.protocol import names
from workers.slots.connection import Script
from workers.slots.keys import PoolKeys
from workers.slots.records import text

_CHANNELS, _CHANNEL = "ts:{*}:reports", re.compile(r"ts:\{([a-z0-9-]+)\}:reports")
# Wake-ups of a busy moment that are read together; what is beyond, the next round finds.
_DRAINED_AT_ONCE = 1_000
# The reader says that it reads, for as long as a slow round may take, in seconds.
_READER, _READER_SECONDS = "terraslot.reports.reader", 10

# What was taken is kept for the repetition of a call whose reply was lost, which follows within seconds.
_TAKEN_SECONDS = 60

# Bytes. An agent cuts outputs to 64,000 bytes and errors to 16,000 characters of up to four bytes.
LONGEST = 256_000
# A report that finds as many is sent again later; an agent of three slots has a handful.
MAX_WAITING = 10_000

REPORT = Script.load("report")
_TAKE = Script.load("take_reports")


@dataclass(frozen=True, slots=True)
class Found:
    """One report as it was found, or its beginning where ``length`` in bytes is above :data:`LONGEST`.

    ``left``: its agent had kept it when it died, and sends it no more.
    """

    pool: str
    content: bytes
    length: int
    left: bool = False


class ReportQueue:
    """The queue of one pool."""

    def __init__(self, client: redis.Redis, pool: str) -> None:
        self._client = client
        self._pool = pool
        self._keys = (PoolKeys(pool).reports, PoolKeys(pool).taken_reports)

    def put(self, report: bytes) -> bool:
        """Append a report; False where too many wait."""
        return bool(REPORT(self._client, self._keys[:1], report, MAX_WAITING))

    def remove(self) -> None:
        """Remove whatever is in the queue's place."""
        self._client.delete(*self._keys)

    def take(self, at_most: int) -> list[Found]:
        """Take the oldest reports out of the queue."""
        replies = _take(self._client, self._keys, at_most, LONGEST)
        return [Found(self._pool, *pair) for pair in zip(replies[1::2], replies[::2], strict=True)]


def older_reports(client: redis.Redis, at_most: int) -> list[Found]:
    """Take reports of agents before 0.2, out of the broker's queue of all pools. Whatever else is there is dropped."""
    queue = names.REPORTS_QUEUE.encode()
    replies = _take(client, (queue, queue + b".taken"), at_most, 2 * LONGEST)
    return [found for message in replies[1::2] if (found := _of_celery(message)) is not None]


def _take(client: redis.Redis, keys: Sequence[bytes], at_most: int, longest: int) -> list[Any]:
    replies: list[Any] = _TAKE(client, keys, at_most, longest, secrets.token_hex(8), _TAKEN_SECONDS)
    return replies


def _of_celery(message: Any) -> Found | None:
    """Return the one argument of a Celery message's task; what else the message asks for is not looked at."""
    with suppress(ValueError, TypeError, LookupError, RecursionError):
        body = json.loads(base64.b64decode(json.loads(message)["body"], validate=True))
        content = json.dumps(body[0][0]).encode()
        return Found("", content, len(content))
    return None


def anything_waits(client: redis.Redis) -> bool:
    """Whether any pool has a report that was not taken."""
    return any(True for _ in client.scan_iter(_CHANNELS, count=1_000)) or bool(client.exists(names.REPORTS_QUEUE))


def mark_read(client: redis.Redis) -> None:
    """Say that a reader reads."""
    client.set(_READER, "1", ex=_READER_SECONDS)


def is_read(client: redis.Redis) -> bool:
    """Whether a reader has said so within the last ten seconds."""
    return bool(client.exists(_READER))


class WakeUps:
    """Tells which pools have new reports. Used by one thread."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._subscribed: redis.client.PubSub | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def wait(self, seconds: float) -> set[str]:
        """Wait for a wake-up, for at most ``seconds``; return the pools of all that are there by then."""
        try:
            if self._subscribed is None:
                self._subscribed = self._client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
                self._subscribed.psubscribe(_CHANNELS)
            return self._drain(self._subscribed, max(0.0, seconds))
        except redis.RedisError:
            self._close()  # the next call subscribes again
            raise

    def _drain(self, subscribed: redis.client.PubSub, seconds: float) -> set[str]:
        woken: set[str] = set()
        for _ in range(_DRAINED_AT_ONCE):
            if (message := subscribed.get_message(timeout=0 if woken else seconds)) is None:
                break
            if found := _CHANNEL.fullmatch(text(message["channel"])):
                woken.add(found[1])
        return woken

    def _close(self) -> None:
        if self._subscribed is not None:
            with suppress(redis.RedisError):
                self._subscribed.close()
            self._subscribed = None
