"""All logs that a server holds, whoever wrote them."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import redis

from workers.protocol.names import NAME, RUN_ID
from workers.slots.keys import PoolKeys
from workers.slots.records import text

# A key of a writer, or of a log's beginning, has one part more.
_LOG = re.compile(rf"ts:\{{({NAME.pattern})\}}:log:({RUN_ID.pattern})")
_LOOKED_AT = 1_000  # keys of one SCAN


class LiveLog(NamedTuple):
    """The log of a run among the keys of a pool."""

    pool: str
    run: str


def live_logs(client: redis.Redis) -> Iterator[LiveLog]:
    """Return every log; one that is written or removed meanwhile may be missing or come twice."""
    for key in client.scan_iter("ts:{*}:log:*", count=_LOOKED_AT, _type="stream"):
        if found := _LOG.fullmatch(text(key)):
            yield LiveLog(found[1], found[2])


def memory(client: redis.Redis, logs: Sequence[LiveLog]) -> list[int]:
    """Return the bytes that each log takes up on the server."""
    with client.pipeline(transaction=False) as pipeline:
        for pool, run in logs:
            for key in (PoolKeys(pool).log(run), PoolKeys(pool).log_beginning(run)):
                pipeline.memory_usage(key)
        sizes = [size or 0 for size in pipeline.execute()]
    return [sum(pair) for pair in zip(sizes[::2], sizes[1::2], strict=True)]
