"""The log of a run while it is live: a Redis stream, bounded in bytes, in lines, in the length of a line, and in time.

Each writer, which is one phase of one attempt, keeps the newest of its lines, and in a second stream a copy of its
first ones. Lines are numbered, so that whoever reads them sees how many are missing. What is stored in the database is
removed from here; see :mod:`workers.services.runs.logs`.

Lines are hostile text: a Terraform configuration decides what is in them. They are cut when they are written, and cut
and freed from control characters when they are read, since a hostile agent may have written them.
"""

import math
import re
import secrets
from collections import deque
from collections.abc import Sequence
from itertools import chain

import redis

from workers.protocol.log_lines import LogLine
from workers.protocol.messages import LIVE_LOG_BYTES
from workers.protocol.names import one_line
from workers.slots.connection import Script
from workers.slots.keys import PoolKeys
from workers.slots.records import Text, text

MAX_LINES = 20_000  # a large apply prints some thousands
MAX_LINE_BYTES = 8 * 1024  # a long line of Terraform has some hundred
KEEP_SECONDS = 7 * 86400  # what no control plane has moved by then is not missed any more
# A writer repeats a batch whose reply was lost within seconds of the server's return.
_BATCHES_SECONDS = 3600
# What lines cost a server: an allocator's sizes are up to a quarter apart; the rest was measured on empty lines, and
# rounded up. A server removes whole nodes of a stream, of 4 KiB or one line, and keeps one more than it has to.
_ALLOCATED = 1.25
_LINE_BYTES = 100
_NODE_BYTES = 16 << 10
_BEGINNING = 0.25  # of a writer's bytes
_READ_BYTES = 1 << 20  # of one reply
_NUMBER = re.compile("[0-9]{1,15}")
_LARGEST_SEQUENCE = 2**64 - 1

APPEND = Script.load("append_log")
_READ = Script.load("read_log")
_TRIM = Script.load("trim_log")
_CUT = " [cut]"


class RunLog:
    """The log stream of one run; both of its phases, in the order of arrival. Each writer has one of its own.

    ``budget``: bytes that the writer's lines may take up on the server. ``attempt``: of the run, 0 if not known.
    """

    def __init__(
        self, client: redis.Redis, pool: str, run: str, *, budget: int = LIVE_LOG_BYTES, attempt: int = 0
    ) -> None:
        self._client = client
        keys = PoolKeys(pool)
        self._key, self._beginning = keys.log(run), keys.log_beginning(run)
        self._batches = keys.log_batches(run, secrets.token_hex(8))
        self._attempt = attempt
        self._batch = 1
        self._lines = 0
        self._left_of_beginning = budget * _BEGINNING
        self._budget = budget * (1 - _BEGINNING) - _NODE_BYTES
        self._newest: deque[int] = deque()  # the sizes of the lines that are kept
        self._bytes = 0  # their sum

    def append(self, lines: Sequence[LogLine]) -> None:
        """Write lines in one round trip. Of more than the budget, the first ones and the newest are kept.

        After an error the same lines follow again: they may have been written, and are not written twice.
        """
        if not lines:
            return
        texts = [_bounded(line.text) for line in lines]
        sizes = [_LINE_BYTES + round(len(each) * _ALLOCATED) for each in texts]
        copied, left = _fit(sizes, self._left_of_beginning)
        gone = self._surplus(sizes)
        # Without a surplus, nothing that others wrote goes before it is moved.
        kept = len(self._newest) + len(sizes) - gone if gone else MAX_LINES
        words = [word for line, cut in zip(lines, texts, strict=True) for word in (line.phase, cut, line.at)]
        limits = (max(1, kept), MAX_LINE_BYTES, KEEP_SECONDS)
        batch = (self._batch, _BATCHES_SECONDS, copied, self._lines + 1, self._attempt)
        APPEND(self._client, (self._key, self._batches, self._beginning), *limits, *batch, *words)
        self._batch += 1
        self._lines += len(lines)
        self._left_of_beginning = left if copied == len(lines) else 0
        self._newest.extend(sizes)
        self._bytes += sum(sizes) - sum(self._newest.popleft() for _ in range(gone))

    def _surplus(self, sizes: Sequence[int]) -> int:
        """Return how many of the oldest lines go when lines of these sizes are added."""
        total, number = self._bytes + sum(sizes), len(self._newest) + len(sizes)
        for gone, size in enumerate(chain(self._newest, sizes)):
            if total <= self._budget and number - gone <= MAX_LINES:
                return gone
            total -= size
        return number

    def read(self, after: str = "0", block: float = 0, count: int = 1000) -> list[LogLine]:
        """Return up to ``count`` lines after the one with this id, fewer where they are long; none at the end.

        With ``block``, wait up to that many seconds for the first: less than the client's ``socket_timeout``.
        """
        if block > 0:
            self._client.xread({self._key: after}, count=1, block=max(1, round(block * 1000)))
        keys = (self._key, self._beginning)
        words = [_readable(word) for word in _READ(self._client, keys, after, count, _READ_BYTES, MAX_LINE_BYTES)]
        return [_line(words[at : at + 6]) for at in range(0, len(words), 6)]

    def trim(self, last: str, *, over: bool) -> None:
        """Remove the lines up to the one with this id, and the rest of the log with them where its run is ``over``."""
        time, _, sequence = last.partition("-")
        first = int(sequence or 0) + 1
        stays = f"{time}-{first}" if first <= _LARGEST_SEQUENCE else f"{int(time) + 1}-0"
        _TRIM(self._client, (self._key, self._beginning), stays, int(over))

    def remove(self) -> None:
        """Remove the log with all of its lines."""
        self._client.delete(self._key, self._beginning)


def _fit(sizes: Sequence[int], budget: float) -> tuple[int, float]:
    """Return how many of the first sizes fit into a budget, and what is left of it."""
    for number, size in enumerate(sizes):
        if size > budget:
            return number, budget
        budget -= size
    return len(sizes), budget


def _line(words: Sequence[str]) -> LogLine:
    entry, phase, text, at, number, attempt = words
    return LogLine(phase, text, _time(at), entry, _count(attempt), _count(number))


def _readable(raw: Text) -> str:
    return one_line(text(raw))


def _time(word: str) -> float:
    try:
        time = float(word)
    except ValueError:
        return 0.0
    return time if math.isfinite(time) else 0.0


def _count(word: str) -> int:
    return int(word) if _NUMBER.fullmatch(word) else 0


def _bounded(text: str) -> bytes:
    line = text.encode("utf-8", "replace")
    if len(line) <= MAX_LINE_BYTES:
        return line
    kept = line[: MAX_LINE_BYTES - len(_CUT)].decode("utf-8", "ignore")
    return (kept + _CUT).encode()
