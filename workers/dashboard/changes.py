"""``/api/v1/changes``: one stream for each page, and one reader for all of them, which looks while anybody listens."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Any, Self

import structlog
from tornado.iostream import StreamClosedError
from tornado.web import url

from workers.core.access import Scope
from workers.dashboard.api.handler import ROOT, ApiHandler
from workers.dashboard.shared_pools import SharedPools
from workers.services.errors import user_message
from workers.services.pools.views import PoolView
from workers.services.system import System
from workers.store.changes import events_from

log = structlog.get_logger(__name__)

# Seconds between two looks, and the longest silence of a stream: proxies end what says nothing for a minute.
LOOK, SILENCE = 1.0, 20.0
# More runs than that are not named: whoever shows runs looks again.
_MOST_RUNS = 200
_FAULT, _AFTER_A_FAULT = "The dashboard can't read what changes: its log has more of it.", 15


def stream(system: System, changes: "Changes", prefix: str) -> Any:
    """Return Tornado's rule for the stream."""
    return url(f"{prefix}{ROOT}/changes", ChangeStream, {"system": system, "changes": changes})


@dataclass(frozen=True)
class Change:
    """The runs and pools that have changed, or ``everything``; ``problem``: what keeps them from being read."""

    runs: frozenset[str] = frozenset()
    pools: frozenset[str] = frozenset()
    everything: bool = False
    problem: str | None = None

    def __or__(self, later: Self) -> "Change":
        """Return both as one."""
        runs = self.runs | later.runs
        everything = self.everything or later.everything or len(runs) > _MOST_RUNS
        return Change(frozenset() if everything else runs, self.pools | later.pools, everything, later.problem)

    def __bool__(self) -> bool:
        return self != Change()

    def document(self) -> str:
        """Return it as JSON."""
        return json.dumps(
            {
                "runs": sorted(self.runs), "pools": sorted(self.pools), "everything": self.everything,
                "problem": self.problem,
            }
        )  # fmt: skip


EVERYTHING = Change(everything=True)


class Reader:
    """Finds out what has changed since it looked last."""

    def __init__(self, system: System, pools: SharedPools) -> None:
        self._system = system
        self._shared = pools
        self._events: frozenset[int] | None = None
        self._pools: dict[str, PoolView] = {}

    def look(self) -> Change:
        """Return what has changed. The first look, and the first after a problem, returns :data:`EVERYTHING`."""
        try:
            with self._system.database.read() as session:
                events = events_from(session, max(self._events, default=0) if self._events is not None else None)
            pools = {pool.name: _without_heartbeats(pool) for pool in self._shared.every()}
        except Exception as error:
            words = user_message(error)
            if words is None:
                raise
            self._events = None
            return Change(problem=words)
        known, self._events = self._events, frozenset(events)
        before, self._pools = self._pools, pools
        if known is None:
            return EVERYTHING
        changed = {run for event, run in events.items() if event not in known}
        different = {name for name in before.keys() | pools.keys() if before.get(name) != pools.get(name)}
        return Change(frozenset(changed), frozenset(different))


def _without_heartbeats(pool: PoolView) -> PoolView:
    agents = tuple(replace(agent, heartbeat_at=agent.registered_at) for agent in pool.agents)
    return replace(pool, agents=agents)


class Changes:
    """Tells all listeners what has changed. What a slow one has not taken yet is told as one change."""

    def __init__(self, look: Callable[[], Change], pause: float = LOOK) -> None:
        self._look = look
        self._pause = pause
        self._listeners: set[_Listener] = set()
        self._looking: asyncio.Task[None] | None = None

    async def listen(self) -> AsyncGenerator[Change]:
        """Yield changes, the first of which is :data:`EVERYTHING`; one of nothing after a long silence."""
        listener = _Listener()
        listener.tell(EVERYTHING)
        self._listeners.add(listener)
        if self._looking is None:
            self._looking = asyncio.create_task(self._keep_looking())
        try:
            while True:
                yield await listener.next()
        finally:
            self._listeners.discard(listener)

    async def _keep_looking(self) -> None:
        try:
            while self._listeners:
                change, pause = await self._found()
                for listener in self._listeners:
                    listener.tell(change)
                await asyncio.sleep(pause)
        finally:
            self._looking = None

    async def _found(self) -> tuple[Change, float]:
        """Return what a look has found, and the pause until the next: a longer one after a fault, which is logged."""
        try:
            return await asyncio.to_thread(self._look), self._pause
        except Exception:
            log.exception("changes can't be read")
            return Change(problem=_FAULT), self._pause * _AFTER_A_FAULT


class _Listener:
    def __init__(self) -> None:
        self._told = Change()
        self._event = asyncio.Event()

    def tell(self, change: Change) -> None:
        self._told |= change
        if self._told:
            self._event.set()

    async def next(self) -> Change:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), SILENCE)
        told, self._told = self._told, Change()
        self._event.clear()
        return told


class ChangeStream(ApiHandler):
    """Server-sent events, one for each :class:`Change`."""

    def initialize(self, system: System, changes: Changes) -> None:
        """Take what is listened to."""
        self._system = system
        self._changes = changes

    async def get(self) -> None:
        """Write changes until the page is gone."""
        await self.answered(self._stream)

    async def _stream(self) -> None:
        await self.caller_with(Scope.READ)
        self.head("text/event-stream")
        self.set_header("X-Accel-Buffering", "no")  # proxies that collect an answer would keep it for ever
        try:
            async with aclosing(self._changes.listen()) as changes:
                async for change in changes:
                    # A page that hears nothing for long takes its connection for dead: no change is told, too.
                    self.write(f"data: {change.document()}\n\n")
                    await self.flush()
        except StreamClosedError:
            return
