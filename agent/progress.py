"""How far a phase has come: counted from the messages of ``apply -json``, told with heartbeats, reported at the end.

A configuration may print any number of messages and addresses: what is kept of them is bounded.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import redis
from redis.exceptions import NoPermissionError, RedisError

from agent.output import clean
from workers.protocol.progress import (
    LONGEST_ADDRESS,
    MAX_LIVE_BYTES,
    MAX_PROGRESS_BYTES,
    Progress,
    ResourceProgress,
)
from workers.slots.live_progress import LiveProgress

if TYPE_CHECKING:
    from agent.execution import Execution

_CHANGES = ("create", "update", "delete")
_MOST_WORKING = 1_000  # Terraform works on ten at once, unless it is told otherwise
_MOST_KEPT = 200
_MOST_COUNTED = 10**9  # a message may name any number
_SHOWN = 10  # of what is under way, what failed and what is done, while the phase executes
_TELL_SECONDS = 1.0
_LATEST = 1e11
_REPEAT_SECONDS = 600.0  # what is told is kept for an hour


class PhaseProgress:
    """What is known of one phase; safe from any thread. ``mask`` hides sensitive values in addresses."""

    def __init__(self, began: float, mask: Callable[[str], str] = str) -> None:
        self._lock = threading.Lock()
        self._mask = mask
        self._step: str | None = None
        self._since = began
        self._done = self._failed = 0
        self._working: dict[tuple[str, str], float] = {}
        self._failures: list[ResourceProgress] = []
        self._latest: deque[ResourceProgress] = deque(maxlen=_SHOWN)
        self._slowest: list[tuple[float, int, ResourceProgress]] = []

    def begin(self, step: str) -> None:
        """Note which command is executed from now on."""
        with self._lock:
            self._step, self._since = step, time.time()

    def take(self, message: Mapping[str, Any]) -> None:
        """Take a message of an apply; one that tells of no change of a resource changes nothing."""
        with suppress(ValueError, LookupError, TypeError, AttributeError, OverflowError), self._lock:
            kind = message["type"]
            if kind == "change_summary" and message["changes"]["operation"] != "plan":
                # The whole truth, also where an earlier process of this agent has read the beginning.
                counted = sum(int(message["changes"][name]) for name in ("add", "change", "remove"))
                self._done = max(self._done, min(counted, _MOST_COUNTED))
            elif kind in ("apply_start", "apply_complete", "apply_errored"):
                hook = message["hook"]
                address = clean(str(hook["resource"]["addr"]))[: LONGEST_ADDRESS + 1]  # longer ones are only counted
                self._take(kind, (address, hook["action"]), _moment(message["@timestamp"]))

    def live(self) -> Progress:
        """Return how far the phase has come by now."""
        with self._lock:
            latest = (self._failures[-_SHOWN:], reversed(self._latest))
            return self._told(MAX_LIVE_BYTES, chain(self._under_way(_SHOWN), *latest), step=self._step)

    def final(self) -> Progress | None:
        """Return what an apply has done, the slowest changes first; None where it has changed nothing."""
        with self._lock:
            if not (self._done or self._failed or self._working):
                return None
            slowest = (each for *_, each in sorted(self._slowest, reverse=True))
            found = chain(self._under_way(_MOST_KEPT), self._failures, slowest)
            return self._told(MAX_PROGRESS_BYTES, found, _MOST_KEPT)

    def _take(self, kind: str, change: tuple[str, str], at: float) -> None:
        if change[1] not in _CHANGES:
            return
        if kind == "apply_start":
            if len(self._working) < _MOST_WORKING:
                self._working[change] = at
            return
        began = self._working.pop(change, at)
        failed = kind == "apply_errored"
        self._done += not failed
        self._failed += failed
        if len(change[0]) <= LONGEST_ADDRESS:
            self._keep(self._resource(change, began, seconds=max(0.0, round(at - began, 3)), failed=failed))

    def _keep(self, ended: ResourceProgress) -> None:
        if ended.failed:
            self._failures = [*self._failures, ended][:_MOST_KEPT]
            return
        self._latest.append(ended)
        entry = (ended.seconds or 0.0, self._done, ended)
        (heapq.heappush if len(self._slowest) < _MOST_KEPT else heapq.heappushpop)(self._slowest, entry)

    def _under_way(self, at_most: int) -> Iterator[ResourceProgress]:
        short = ((change, since) for change, since in self._working.items() if len(change[0]) <= LONGEST_ADDRESS)
        for change, since in heapq.nsmallest(at_most, short, key=lambda each: each[1]):
            yield self._resource(change, since)

    def _resource(self, change: tuple[str, str], since: float, **ended: Any) -> ResourceProgress:
        address = self._mask(change[0])[:LONGEST_ADDRESS]
        return ResourceProgress(address=address, action=change[1], since=round(since, 3), **ended)

    def _told(self, room: int, found: Iterable[ResourceProgress], at_most: int = 3 * _SHOWN, **facts: Any) -> Progress:
        counts = {"working": len(self._working), "failed": self._failed, "done": self._done}
        return Progress.fitting(room, islice(found, at_most), since=round(self._since, 3), **counts, **facts)


class ProgressTeller:
    """Tells the progress of what executes on Redis, where whoever watches reads it.

    Called with each heartbeat: a phase is told of after its first second, at most once a second, and only where
    something has changed. A control plane before 0.2 does not allow it: it is asked again after ten minutes.
    """

    def __init__(self, client: redis.Redis, pool: str) -> None:
        self._client = client
        self._pool = pool
        self._told: dict[str, tuple[float, Progress | None]] = {}
        self._refused_until = 0.0

    def tell(self, executing: Collection[Execution]) -> None:
        """Tell of phases. A server that is away is waited for once: the next call tells what is left."""
        now = time.monotonic()
        if now < self._refused_until:
            return
        known = {each.order.token: each for each in executing}
        self._told = {token: self._told.get(token, (now, None)) for token in known}
        for token, execution in known.items():
            at, before = self._told[token]
            live = execution.progress.live()
            if now - at < _TELL_SECONDS or (live == before and now - at < _REPEAT_SECONDS):
                continue
            try:
                LiveProgress(self._client, self._pool, execution.order.run).tell(token, live)
                self._told[token] = (now, live)
            except NoPermissionError:
                self._refused_until = now + _REPEAT_SECONDS
                return
            except RedisError:
                return


def _moment(text: str) -> float:
    at = datetime.fromisoformat(text).timestamp()
    if not 0 <= at < _LATEST:
        raise ValueError(text)
    return at
