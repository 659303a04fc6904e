"""A monitor as Flower is one: Celery's own receiver and state, on what a control plane sends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from celery.events import EventReceiver
from celery.events.state import State, Task, Worker

from tests.waiting import eventually
from workers.services.system import System


@dataclass
class Monitor:
    """Celery's state, fed with every event that is heard."""

    state: State = field(default_factory=State)
    heard: list[dict[str, Any]] = field(default_factory=list)

    def on_event(self, event: dict[str, Any]) -> None:
        self.heard.append(event)
        self.state.event(event)

    def types(self, run: str) -> list[str]:
        return [event["type"].removeprefix("task-") for event in self.heard if event.get("uuid") == run]

    def reaches(self, run: str, state: str) -> Task:
        """Wait until a task has a state; return it."""
        return eventually(lambda: (task := self.state.tasks.get(run)) and task.state == state and task)

    def worker(self, name: str, *, alive: bool = True, **facts: Any) -> Worker:
        """Wait until a worker is alive, or not, and what is said of it; return it."""

        def so() -> Worker | None:
            worker = self.state.workers.get(name)
            if worker is None or worker.alive is not alive:
                return None
            return worker if all(getattr(worker, fact, None) == value for fact, value in facts.items()) else None

        return eventually(so)


@contextmanager
def monitoring(system: System) -> Iterator[Monitor]:
    """Listen to the events of a system; from the first line of the block on, none is missed."""
    monitor = Monitor()
    with system.celery.connection() as connection:
        receiver = EventReceiver(connection, handlers={"*": monitor.on_event}, app=system.celery)
        thread = threading.Thread(target=lambda: receiver.capture(wakeup=False))
        thread.start()

        def listens() -> bool:
            system.events.send(lambda: [{"type": "probe", "hostname": "tests"}])
            return bool(monitor.heard)

        eventually(listens)
        yield monitor
        receiver.should_stop = True
        system.events.send(lambda: [{"type": "last", "hostname": "tests"}])  # it looks when it has heard something
        thread.join()
