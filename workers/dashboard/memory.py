"""Keeps what Flower remembers of runs and agents true: it lives on events, which are lost while nobody listens.

Every few seconds, what is remembered is compared with the database and the slot map, and where it differs, Flower is
given the event that it has missed: after a restart, for each run that goes on. One that it has heard since the look
stays. The agents' entries among Flower's inspected workers are made here as well, since agents obey no remote control.
"""

import asyncio
import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

import structlog
from celery import states
from celery.events.state import Task, Worker
from tornado.ioloop import PeriodicCallback

from workers.core.lifecycle import HOLDING
from workers.dashboard.agent_details import details, is_agent
from workers.protocol.leases import AgentRecord
from workers.services import worker_events
from workers.services.errors import user_message
from workers.services.runs import task_events
from workers.services.system import System

log = structlog.get_logger(__name__)

_EVERY = 3.0  # seconds
# Runs that are compared, the latest; and those that one look makes up for.
_COMPARED, _AT_ONCE = 10_000, 500
_GOING_ON = (states.RECEIVED, states.STARTED, states.RETRY, *(status.celery_state for status in HOLDING))
_ENDS = ("task-succeeded", "task-failed")

_Standings = Mapping[str, tuple[str, float]]
_Agents = Mapping[str, tuple[str, AgentRecord]]


class Memory:
    """What one Flower remembers; used by its loop alone."""

    def __init__(self, flower: Any, system: System) -> None:
        self._flower = flower
        self._system = system
        self._problem: str | None = None
        self._timer = PeriodicCallback(self.refresh, _EVERY * 1000)

    def start(self) -> None:
        """Look now, and from now on."""
        self._flower.io_loop.add_callback(self.refresh)
        self._timer.start()

    async def refresh(self) -> None:
        """Look once; a server that is away is asked again the next time."""
        try:
            await self._refresh()
            self._problem = None
        except Exception as error:  # noqa: BLE001 - the next look may succeed, and Flower goes on without
            problem = user_message(error) or repr(error)
            if problem != self._problem:
                log.warning("what Flower remembers can't be compared", why=problem)
            self._problem = problem

    async def _refresh(self) -> None:
        standings = await asyncio.to_thread(task_events.standings, self._system, _COMPARED)
        agents = await asyncio.to_thread(worker_events.every, self._system)
        self._feed(self._of_workers(agents))
        self._inspect(agents)
        missed = self._missed(standings)
        if missed:
            events = await asyncio.to_thread(task_events.latest, self._system, missed)
            self._feed(event for event in events if self._is_news(event))

    def _feed(self, events: Iterable[Mapping[str, Any]]) -> None:
        state = self._flower.events.state
        for event in events:
            # A task's event is no sign of life of its worker: without the time when it was received it counts as none.
            received = time.time() if event["type"].startswith("worker-") else None
            state.event({"timestamp": time.time(), "local_received": received, "clock": 0, "pid": None, **event})

    def _missed(self, standings: _Standings) -> list[str]:
        tasks = self._flower.events.state.tasks.data
        behind = [
            run
            for run, (state, since) in standings.items()
            if (task := tasks.get(run)) is None or (task.state != state and self._is_behind(run, since))
        ]
        over = [run for run in self._going_on() if run not in standings]
        return (behind + over)[:_AT_ONCE]

    def _going_on(self) -> list[str]:
        of = self._flower.events.state.search_engine.exact_postings["state"]
        return [run for state in _GOING_ON for run in of.get(state.lower(), ())]

    def _is_news(self, event: Mapping[str, Any]) -> bool:
        since = math.inf if event["type"] in _ENDS else event["timestamp"]
        return self._is_behind(event["uuid"], since)

    def _is_behind(self, run: str, since: float) -> bool:
        """Whether what is remembered of a run is not newer than that; one that is over stays so."""
        task: Task | None = self._flower.events.state.tasks.data.get(run)
        return task is None or (task.state not in states.READY_STATES and (task.timestamp or 0) <= since)

    def _of_workers(self, agents: _Agents) -> list[dict[str, Any]]:
        remembered: Mapping[str, Worker] = self._flower.events.state.workers.data
        events = [worker_events.standing(self._system, *of) for of in agents.values()]
        changed = [event for event in events if _differs(remembered.get(event["hostname"]), event)]
        gone = [
            {"type": "worker-offline", "hostname": name}
            for name, worker in remembered.items()
            if worker.sw_ident == worker_events.AGENT and worker.alive and name not in agents
        ]
        return changed + gone

    def _inspect(self, agents: _Agents) -> None:
        inspected = self._flower.inspector.workers
        for name in [name for name, known in inspected.items() if is_agent(known) and name not in agents]:
            del inspected[name]
        for name, (pool, agent) in agents.items():
            inspected[name] = details(pool, agent)


def _differs(worker: Worker | None, event: Mapping[str, Any]) -> bool:
    if worker is None:
        return True
    alive = event["type"] != "worker-offline"
    told = ("active", "reserved", "draining")
    return worker.alive is not alive or any(getattr(worker, name, None) != event[name] for name in told)
