"""What Flower remembers agrees with the database and the slot map, whatever it has heard."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from flower.events import EventsState

from tests.services import conftest as services
from tests.services.conftest import POOL, ControlPlane
from workers.core.lifecycle import RunStatus
from workers.dashboard.memory import Memory
from workers.protocol import names
from workers.protocol.kinds import RunKind
from workers.services.runs import decide, task_events

control = services.control  # a fixture
NAME = names.node_name(POOL, "default-1")


class Deaf:
    """A Flower that hears no events, with its memory."""

    def __init__(self, control: ControlPlane) -> None:
        self.state = EventsState(max_tasks_in_memory=100)
        self.inspected: dict[str, Any] = {}
        flower = SimpleNamespace(
            events=SimpleNamespace(state=self.state), inspector=SimpleNamespace(workers=self.inspected)
        )
        self._memory = Memory(flower, control.system)

    def refresh(self) -> None:
        asyncio.run(self._memory.refresh())

    def hear(self, event: dict[str, Any]) -> None:
        self.state.event({"local_received": None, "clock": 0, **event})

    def task(self, run: str) -> tuple[str, str]:
        task = self.state.tasks[run]
        return task.state, task.worker.hostname


@pytest.fixture
def deaf(control: ControlPlane) -> Deaf:
    control.workspace()
    return Deaf(control)


def test_it_follows_a_run_through_all_of_its_states(control: ControlPlane, deaf: Deaf) -> None:
    run = control.submit(RunKind.PLAN_AND_APPLY).id
    deaf.refresh()
    assert deaf.task(run) == ("RECEIVED", "terraslot")
    agent = control.agent()
    deaf.refresh()
    assert deaf.task(run) == ("PLANNING", NAME)
    agent.work()
    deaf.refresh()
    assert deaf.task(run) == ("APPLY_PENDING", NAME)
    decide.confirm(control.system, run)
    agent.work()
    deaf.refresh()
    assert deaf.task(run) == ("SUCCESS", NAME)
    heard = deaf.state.event_count
    deaf.refresh()
    assert deaf.state.event_count == heard, "nothing is told twice"


def test_what_was_heard_since_the_look_stays(
    control: ControlPlane,
    deaf: Deaf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent = control.agent()
    run = control.submit(RunKind.PLAN_AND_APPLY).id
    seen_before = task_events.standings(control.system, 10)
    latest_before = task_events.latest(control.system, [run])
    agent.work()
    deaf.hear(task_events.standing(control.run(run)))
    monkeypatch.setattr(task_events, "standings", lambda *_: seen_before)
    monkeypatch.setattr(task_events, "latest", lambda *_: latest_before)
    deaf.refresh()
    assert deaf.task(run)[0] == "APPLY_PENDING"


def test_the_agents_are_those_of_the_slot_map(control: ControlPlane, deaf: Deaf) -> None:
    agent = control.agent()
    run = control.submit(RunKind.PLAN).id
    deaf.refresh()
    worker = deaf.state.workers[NAME]
    assert (worker.alive, worker.active, worker.pool, worker.slots) == (True, 1, POOL, 3)
    assert [task["id"] for task in deaf.inspected[NAME]["active"]] == [run]
    agent.work(changed=False)
    control.slots.deregister(agent.name, agent.instance_id)
    deaf.refresh()
    assert (worker.alive, NAME in deaf.inspected) == (False, False)


def test_a_database_that_is_away_is_asked_again(
    control: ControlPlane,
    deaf: Deaf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    control.submit(RunKind.PLAN)
    with monkeypatch.context() as away:
        away.setattr(task_events, "standings", lambda *_: (_ for _ in ()).throw(OSError("away")))
        deaf.refresh()
    assert not deaf.state.tasks
    deaf.refresh()
    assert len(deaf.state.tasks) == 1


def test_every_state_of_a_run_that_goes_on_is_one_that_is_compared() -> None:
    from workers.dashboard.memory import _GOING_ON  # noqa: PLC0415

    assert {task_events.state_of(status, 0) for status in RunStatus if not status.is_over} <= set(_GOING_ON)
