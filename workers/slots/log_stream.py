"""The log of a run: a Redis stream, bounded in lines, in the length of a line, and in time.

Lines are hostile text: a Terraform configuration decides what is in them. They are cut when they are written, and lose
their control characters when they are read, since a hostile agent may have written them.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from workers.protocol.names import one_line
from workers.slots.connection import Script
from workers.slots.keys import PoolKeys
from workers.slots.records import Text, text

MAX_LINES = 20_000  # a large apply prints some thousands
MAX_LINE_BYTES = 8 * 1024  # a long line of Terraform has some hundred
KEEP_SECONDS = 7 * 86400  # long enough for a person to look after a week-end
# A writer repeats a batch whose reply was lost within seconds of the server's return.
_BATCHES_SECONDS = 3600

APPEND = Script.load("append_log")
_CUT = " [cut]"


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of output, without its line feed. ``at``: when it was printed, in seconds since the epoch.

    ``id`` is its place in the stream, to go on reading from there; the stream gives it.
    """

    phase: str
    text: str
    at: float
    id: str = ""


class RunLog:
    """The log stream of one run; both of its phases, in the order of arrival. Each writer has one of its own."""

    def __init__(self, client: redis.Redis, pool: str, run: str) -> None:
        self._client = client
        self._key = PoolKeys(pool).log(run)
        self._batches = PoolKeys(pool).log_batches(run, secrets.token_hex(8))
        self._batch = 1

    def append(self, lines: Sequence[LogLine]) -> None:
        """Write lines in one round trip. Beyond the newest 20,000 (and up to a hundred more) the oldest go.

        After an error the same lines follow again: they may have been written, and are not written twice.
        """
        if not lines:
            return
        words = [word for line in lines for word in (line.phase, _bounded(line.text), line.at)]
        limits = (MAX_LINES, MAX_LINE_BYTES, KEEP_SECONDS)
        APPEND(self._client, (self._key, self._batches), *limits, self._batch, _BATCHES_SECONDS, *words)
        self._batch += 1

    def read(self, after: str = "0", block: float = 0, count: int = 1000) -> list[LogLine]:
        """Return up to ``count`` lines after the one with this id; none where there are none.

        With ``block``, wait up to that many seconds for the first: less than the client's ``socket_timeout``.
        """
        if block > 0:
            self._client.xread({self._key: after}, count=1, block=max(1, round(block * 1000)))
        entries: Any = self._client.xrange(self._key, min=f"({after}", count=count)
        return [_line(entry, fields) for entry, fields in entries]


def _line(entry: Text, fields: Mapping[Text, Text]) -> LogLine:
    words = {_readable(name): _readable(value) for name, value in fields.items()}
    return LogLine(words.get("phase", ""), words.get("text", ""), _time(words.get("at", "")), _readable(entry))


def _readable(raw: Text) -> str:
    return one_line(text(raw))


def _time(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return 0.0


def _bounded(text: str) -> bytes:
    line = text.encode("utf-8", "replace")
    if len(line) <= MAX_LINE_BYTES:
        return line
    kept = line[: MAX_LINE_BYTES - len(_CUT)].decode("utf-8", "ignore")
    return (kept + _CUT).encode()
