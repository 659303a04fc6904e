"""Logs of runs: move them from Redis into the database when a phase has ended, and read them wherever they are.

A move copies, commits, and removes what it copied: one that stops in between is repeated by the next, which begins
after the last line that is stored. Two at once store one piece between them. Whoever reads looks at Redis first and at
the database then, so that a line that moves meanwhile is met once, and in its place.

The job looks at every log that the server holds, so that no message is needed that could be lost, and a report of an
agent costs nothing more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice

import structlog

from workers.core.lifecycle import EXECUTING
from workers.core.logs import POOL_LIVE_BYTES, Packer, is_after, unpack, with_gaps
from workers.protocol.log_lines import LogLine
from workers.protocol.messages import LIVE_LOG_BYTES
from workers.services.errors import isolate
from workers.services.runs.views import RunView
from workers.services.system import System
from workers.slots.live_logs import LiveLog, live_logs, memory
from workers.slots.log_stream import RunLog
from workers.store import logs, run_queries
from workers.store.models import Run

log = structlog.get_logger(__name__)

_LOOKED_AT_TOGETHER = 200  # logs
# Replies of up to a MiB that one move reads: an agent may write as fast as it is read.
_READ_AT_ONCE = 200
# A run that executes may hold the log of its phase before, which is about to be moved.
_LARGEST = 2 * LIVE_LOG_BYTES


@dataclass(frozen=True)
class _Live:
    run: Run
    bytes: int


def move_logs(system: System) -> int:
    """Move the logs of runs that execute nothing now, and others where they take up too much; return how many.

    A log of a run that the pool does not have is removed.
    """
    moved = 0
    executing: dict[str, list[_Live]] = {}
    every = live_logs(system.redis)
    while found := list(islice(every, _LOOKED_AT_TOGETHER)):
        known = _known(system, found)
        for entry, size in zip(found, memory(system.redis, found), strict=True):
            run = known.get(entry.run)
            if run is None or run.pool != entry.pool:
                log.warning("log removed: its pool has no such run", pool=entry.pool, run=entry.run)
                RunLog(system.redis, *entry).remove()
            elif run.status in EXECUTING:
                executing.setdefault(run.pool, []).append(_Live(run, size))
            else:
                moved += move(system, run)
    return moved + sum(move(system, live.run) for lives in executing.values() for live in _too_large(lives))


class LogReader:
    """Reads the log of one run from its beginning, stored or live, and says where lines are missing."""

    def __init__(self, system: System, run: RunView) -> None:
        self._system = system
        self._run = run
        self._live = RunLog(system.redis, run.pool, run.run_id)
        self._after = "0"
        self._piece = 0
        self._before: LogLine | None = None
        self._missing = 0

    def read(self, block: float = 0) -> list[LogLine]:
        """Return the next lines; none where there are none yet, after waiting up to ``block`` seconds for the first."""
        while True:
            lines = self._live.read(self._after, block)
            with self._system.database.read() as session:
                piece = logs.following(session, self._run.run_id, self._piece)
            if piece is not None:
                self._piece, block = piece.number, 0
                self._missing += 0 if piece.content else piece.lines
                lines = [line for line in unpack(piece.content) if is_after(line.id, self._after)]
            if lines or piece is None:
                return self._shown(lines)

    def __iter__(self) -> Iterator[LogLine]:
        """Return what there is by now."""
        while lines := self.read():
            yield from lines

    def _shown(self, lines: Sequence[LogLine]) -> list[LogLine]:
        if not lines:
            return []
        lines = [_with_attempt(line, self._run.attempt) for line in lines]
        shown = list(with_gaps(lines, self._before, self._missing))
        self._before, self._after, self._missing = lines[-1], lines[-1].id, 0
        return shown


def _known(system: System, found: Sequence[LiveLog]) -> dict[str, Run]:
    with system.database.read() as session:
        return {run.id: run for run in run_queries.these(session, [entry.run for entry in found])}


def _too_large(lives: list[_Live]) -> Iterator[_Live]:
    """Return the logs that are too large by themselves, and the largest ones until the others fit into the pool's."""
    total = sum(live.bytes for live in lives)
    for live in sorted(lives, key=lambda live: live.bytes, reverse=True):
        if live.bytes <= _LARGEST and total <= POOL_LIVE_BYTES:
            return
        total -= live.bytes
        yield live


def move(system: System, run: Run) -> bool:
    """Move the log of a run as it is now, whatever the run does; return whether anything was moved."""
    with isolate("log not moved", **run.about):
        return _copy_and_trim(system, run)
    return False


def _copy_and_trim(system: System, run: Run) -> bool:
    live = RunLog(system.redis, run.pool, run.id)
    with system.database.read() as session:
        number, last = logs.newest(session, run.id)
    packer = _pack(live, last, run.attempt)
    if packer.lines and is_after(packer.last, _tomorrow(system)):
        log.warning("log removed: no server wrote the ids of its lines", **run.about)
        live.remove()
        return False
    if packer.lines:
        with system.database.begin() as session:
            piece = packer.finish()
            if not logs.add(session, run.id, number + 1, last=packer.last, lines=packer.lines, content=piece):
                return False  # another process moves it
    live.trim(packer.last or last, over=run.status.is_over)
    return packer.lines > 0


def _pack(live: RunLog, last: str, attempt: int) -> Packer:
    packer = Packer()
    for _ in range(_READ_AT_ONCE):
        lines = live.read(packer.last or last)
        for line in lines:
            packer.add(_with_attempt(line, attempt))
        if not lines:
            break
    return packer


def _with_attempt(line: LogLine, attempt: int) -> LogLine:
    """Return a line with its attempt, where its writer did not know it."""
    return line if line.attempt else replace(line, attempt=attempt)


def _tomorrow(system: System) -> str:
    return f"{round((system.now() + timedelta(days=1)).timestamp() * 1000)}-0"
