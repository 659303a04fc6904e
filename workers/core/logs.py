"""How much of a log is kept, and how: the budgets, and pieces of compressed lines.

A piece is a sequence of blocks, each compressed by itself, so that neither who makes one nor who reads one needs memory
for more than a block and the bounds below. Of lines that do not fit, the first and the last blocks stay; the numbers of
the lines tell how many are missing.
"""

import json
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from workers.protocol.log_lines import LogLine

# Bytes on Redis of all live logs of a pool.
POOL_LIVE_BYTES = 128 << 20

# Bytes of a run's log that are stored, compressed; of one piece; and of one piece before it was compressed.
STORED_BYTES = 2 << 20
PIECE_BYTES = STORED_BYTES // 2
_PIECE_RAW_BYTES = 16 << 20
_BLOCK_BYTES = 64 << 10


class Packer:
    """Makes one piece of up to ``budget`` bytes, half of them for its beginning, from lines that are added in order."""

    def __init__(self, budget: int = PIECE_BYTES, raw: int = _PIECE_RAW_BYTES) -> None:
        self._half, self._raw_half = budget // 2, raw // 2
        self._beginning: list[bytes] = []
        self._beginning_bytes = self._beginning_raw = 0
        self._end: deque[tuple[bytes, int]] = deque()
        self._end_bytes = self._end_raw = 0
        self._block: list[str] = []
        self._block_bytes = 0
        self._last = LogLine("", "", 0.0)
        self.lines = 0

    @property
    def last(self) -> str:
        """The id of the last line; empty where there is none."""
        return self._last.id

    def add(self, line: LogLine) -> None:
        """Take the next line. One without a number gets one, so that a gap shows."""
        follows = self._last.number + 1 if _same_output(self._last, line) else 1
        self._last = line if line.number else replace(line, number=follows)
        words = json.dumps(_fields(self._last), ensure_ascii=False)
        self._block.append(words)
        self._block_bytes += len(words)
        self.lines += 1
        if self._block_bytes >= _BLOCK_BYTES:
            self._end_block()

    def finish(self) -> bytes:
        """Return the piece."""
        self._end_block()
        return b"".join((*self._beginning, *(block for block, _ in self._end)))

    def _end_block(self) -> None:
        if not self._block:
            return
        block, raw = zlib.compress("\n".join(self._block).encode()), self._block_bytes
        self._block, self._block_bytes = [], 0
        fits = self._beginning_bytes + len(block) <= self._half and self._beginning_raw + raw <= self._raw_half
        if fits and not self._end:
            self._beginning.append(block)
            self._beginning_bytes += len(block)
            self._beginning_raw += raw
            return
        self._end.append((block, raw))
        self._end_bytes += len(block)
        self._end_raw += raw
        while self._end_bytes > self._half or self._end_raw > self._raw_half:
            gone, raw = self._end.popleft()
            self._end_bytes -= len(gone)
            self._end_raw -= raw


def unpack(piece: bytes) -> Iterator[LogLine]:
    """Return the lines of a piece."""
    while piece:
        block = zlib.decompressobj()
        for words in block.decompress(piece).decode().split("\n"):
            yield LogLine(*json.loads(words))
        piece = block.unused_data


def is_after(one: str, other: str) -> bool:
    """Whether the line of the first id comes after that of the second."""
    return _place(one) > _place(other)


def with_gaps(lines: Iterable[LogLine], before: LogLine | None, missing: int = 0) -> Iterator[LogLine]:
    """Return lines with one more wherever some are missing. ``before`` came last.

    ``missing``: lines after it that are known to be missing, whatever the numbers say.
    """
    for line in lines:
        if gap := max(missing, _gap(before, line)):
            are = "line is" if gap == 1 else "lines are"
            yield replace(line, text=f"… {gap} {are} missing here: the log was too long …", number=0)
        yield line
        before, missing = line, 0


def surplus(sizes: Sequence[int], budget: int = STORED_BYTES) -> int:
    """Return how many pieces after the first have to go, so that the first and the newest ones fit into the budget."""
    gone, total = 0, sum(sizes)
    while total > budget and gone < len(sizes) - 2:
        gone += 1
        total -= sizes[gone]
    return gone


def _gap(before: LogLine | None, line: LogLine) -> int:
    if not line.number:
        return 0
    continues = before is not None and _same_output(before, line) and before.number < line.number
    return line.number - 1 - (before.number if before is not None and continues else 0)


def _same_output(one: LogLine, other: LogLine) -> bool:
    return (one.phase, one.attempt) == (other.phase, other.attempt)


def _fields(line: LogLine) -> tuple[str, str, float, str, int, int]:
    return line.phase, line.text, line.at, line.id, line.attempt, line.number


def _place(entry: str) -> tuple[int, int]:
    time, _, sequence = entry.partition("-")
    return int(time), int(sequence or 0)
