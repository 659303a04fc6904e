"""Terraform's output on its way to the run's log: hostile bytes in, clean bounded lines out.

A line is in the log within a tenth of a second; lines that come faster than the log takes them are written in batches,
one round trip each. While the log can't be written, the newest lines are kept, and a line says how many older ones are
missing. A provider or a provisioner may print anything: control sequences are removed.
"""

import math
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from structlog.typing import FilteringBoundLogger

from agent.masking import Mask
from workers.protocol.log_lines import LogLine
from workers.protocol.names import CONTROLS

MAX_LINE = 8_000  # below the log stream's own bound in bytes
# Of one phase, while the log can't be written: with three slots some 15 MB.
MAX_BUFFERED_LINES = 10_000
MAX_BUFFERED_CHARACTERS = 4_000_000
MAX_BATCH = 1_000
CUT = " … (the rest of this line was left out)"

_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]*[0-~])"
)
_CONTROL = re.compile(f"[\n{CONTROLS}\ud800-\udfff]")  # nor can a half of a surrogate pair be sent


def clean(text: str) -> str:
    """Return ``text`` without control sequences and control characters, newlines included."""
    if text.isprintable():
        return text
    return _CONTROL.sub("", _SEQUENCE.sub("", text))


class Lines:
    """Cuts a stream of bytes into clean lines of bounded length.

    ``secret``: the length of the longest value that is masked; a line is cut so that no beginning of one is left.
    """

    def __init__(self, emit: Callable[[str], None], secret: int = 0) -> None:
        self._emit = emit
        self._secret = secret
        self._rest = bytearray()

    def feed(self, data: bytes) -> None:
        """Take the stream's next bytes."""
        *whole, rest = data.split(b"\n")
        for part in whole:
            self._add(part)
            self._end_line()
        self._add(rest)

    def end(self) -> None:
        """Take the stream's end; an unfinished line counts."""
        if self._rest:
            self._end_line()

    def _add(self, part: bytes) -> None:
        self._rest += part[: max(0, MAX_LINE + 1 - len(self._rest))]

    def _end_line(self) -> None:
        cut = CUT if len(self._rest) > MAX_LINE else ""
        kept = MAX_LINE - self._secret if cut else MAX_LINE
        text = clean(self._rest[:kept].decode(errors="replace"))
        self._rest.clear()
        self._emit(text + cut)


class Excerpt:
    """The beginning and the end of a text that may be of any length."""

    def __init__(self, characters: int) -> None:
        self._half = characters // 2
        self._head: list[str] = []
        self._head_size = 0
        self._tail: deque[str] = deque()
        self._tail_size = 0
        self._left_out = 0

    def add(self, line: str) -> None:
        """Take the next line."""
        if not self._tail and self._head_size + len(line) <= self._half:
            self._head.append(line)
            self._head_size += len(line) + 1
            return
        self._tail.append(line)
        self._tail_size += len(line) + 1
        while self._tail_size > self._half:
            self._tail_size -= len(self._tail.popleft()) + 1
            self._left_out += 1

    @property
    def lines(self) -> list[str]:
        """What was kept, with a line that says how much was not."""
        gap = [f"… lines left out: {self._left_out} …"] if self._left_out else []
        return [*self._head, *gap, *self._tail]


class LogWriter:
    """Writes one phase's lines from a thread of its own, started with the first. ``write`` is for any thread.

    One call of ``append`` is one round trip to the log, and raises where that can't be written.
    """

    def __init__(self, append: Callable[[Sequence[LogLine]], None], phase: str, logger: FilteringBoundLogger) -> None:
        self._append = append
        self._phase = phase
        self._logger = logger
        self._buffer: deque[LogLine] = deque()
        self._size = 0
        self._dropped = 0
        self._reachable = True
        self._closing = False
        self._until = math.inf
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self.mask = Mask()
        self.relative: Callable[[str], str] = str  # to the run's directory

    def shown(self, text: str) -> str:
        """Return a text as people may see it: without sensitive values, and without paths of this agent's own."""
        return self.relative(self.mask(text))

    def write(self, text: str) -> None:
        """Take one line. Waits for space while the log can be written, so that only an outage loses lines."""
        text = self.shown(text)
        line = LogLine(phase=self._phase, text=text, at=time.time())
        with self._changed:
            if self._full() and self._reachable:
                self._changed.wait_for(lambda: not self._full() or not self._reachable, timeout=1)
            while self._full():
                self._size -= len(self._buffer.popleft().text)
                self._dropped += 1
            self._buffer.append(line)
            self._size += len(text)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="log", daemon=True)
                self._thread.start()
            if len(self._buffer) == 1:
                self._changed.notify_all()

    def write_text(self, text: str) -> None:
        """Take text of the agent's own, line by line."""
        for line in text.split("\n"):
            self.write(clean(line))

    def stream(self, also: Callable[[str], None] | None = None) -> Lines:
        """Return where to feed one of a process's output streams. ``also`` is called with every line of it."""
        if also is None:
            return Lines(self.write, self.mask.longest)

        def write(text: str) -> None:
            shown = self.shown(text)
            also(shown)
            self.write(shown)

        return Lines(write, self.mask.longest)

    def close(self, patience: float) -> None:
        """Write what is left, for at most ``patience`` seconds."""
        with self._changed:
            self._closing = True
            self._until = time.monotonic() + patience
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(patience)

    def _full(self) -> bool:
        return len(self._buffer) >= MAX_BUFFERED_LINES or self._size > MAX_BUFFERED_CHARACTERS

    def _work(self) -> None:
        while batch := self._next_batch():
            pause = 0.1
            while not self._written(batch):
                if time.monotonic() > self._until:
                    return
                time.sleep(min(pause, max(0.0, self._until - time.monotonic())))
                pause = min(2.0, 2 * pause)

    def _next_batch(self) -> list[LogLine]:
        """Return the next lines, waiting for one; none when the log is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._buffer or self._closing)
            batch = [self._buffer.popleft() for _ in range(min(MAX_BATCH, len(self._buffer)))]
            self._size -= sum(len(line.text) for line in batch)
            if self._dropped and batch:
                gap = f"… {self._dropped} lines are missing: the log could not be written …"
                batch.insert(0, LogLine(phase=self._phase, text=gap, at=batch[0].at))
                self._dropped = 0
            self._changed.notify_all()
            return batch

    def _written(self, batch: Sequence[LogLine]) -> bool:
        try:
            self._append(batch)
            reached = True
        except Exception as error:  # noqa: BLE001 - an error of the log must not end a run
            if self._reachable:
                self._logger.warning("log not written, trying again", error=str(error))
            reached = False
        with self._changed:
            self._reachable = reached
            self._changed.notify_all()
        return reached
