"""An outcome that can't be delivered stops no other, is tried again at growing pauses, and ends where people see it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from tests.services.conftest import ControlPlane
from workers.core.delivery import ATTEMPTS, LONGEST_PAUSE, REFUSED_ATTEMPTS
from workers.core.errors import RunCancelled
from workers.core.lifecycle import RunNote, RunStatus
from workers.protocol.kinds import RunKind
from workers.services.runs import decide, deliver, views
from workers.services.system import System
from workers.store.deliveries import Overdue
from workers.store.models import Delivery, Run

Clock = Callable[[float], None]
LATER = 91  # seconds: a minute, and a cycle
STAMPED = {"stamped_headers": ["queue"], "queue": "elsewhere"}  # as Celery gives the options of a stamped task


def over(control: ControlPlane, run: Run) -> Run:
    """Let a run be over, whose outcome is then delivered once."""
    return decide.cancel(control.system, run.id)


def spoil(control: ControlPlane, run: Run, **facts: Any) -> Run:
    """Change the message that a run was submitted by, as a caller's stamps or a fault of the database would."""
    with control.system.database.begin() as session:
        row = session.get_one(Run, run.id)
        row.task = {**row.task, "options": {**row.task["options"], **facts}}
    return run


def overdue(control: ControlPlane, clock_ahead: Clock, count: int) -> list[str]:
    """Let runs be over whose outcomes never arrive, until these are overdue; return their ids."""
    control.workspace()
    late = [over(control, control.submit(RunKind.PLAN)).id for _ in range(count)]
    control.deliveries()
    clock_ahead(LATER)
    return late


def delivered_again(control: ControlPlane) -> list[str]:
    deliver.deliver_overdue(control.system)
    return control.deliveries()


def test_an_outcome_that_can_not_be_sent_stops_no_other(control: ControlPlane, clock_ahead: Clock) -> None:
    """F36: the message of one run names what Celery takes for something else."""
    control.workspace()
    bad, good = spoil(control, control.submit(RunKind.PLAN), **STAMPED), control.submit(RunKind.PLAN)
    assert over(control, bad).status is over(control, good).status is RunStatus.CANCELLED
    assert control.deliveries() == [good.id]
    clock_ahead(LATER)
    assert delivered_again(control) == [good.id]


def test_an_outcome_that_can_not_be_read_stops_no_other(control: ControlPlane, clock_ahead: Clock) -> None:
    """F36: a row that another version, or a person, has written."""
    control.workspace()
    bad, good = control.submit(RunKind.PLAN), control.submit(RunKind.PLAN)
    over(control, bad), over(control, good)
    control.deliveries()
    with control.system.database.begin() as session:
        session.connection().exec_driver_sql(f"UPDATE runs SET task = '{{' WHERE id = '{bad.id}'")
    clock_ahead(LATER)
    assert delivered_again(control) == [good.id]


def test_an_outcome_that_nobody_takes_is_sent_at_growing_pauses(control: ControlPlane, clock_ahead: Clock) -> None:
    control.workspace()
    run = over(control, control.submit(RunKind.PLAN))
    control.deliveries()
    sent, ahead = [], 0
    while ahead < 4200:
        ahead += 30  # as often as beat asks
        clock_ahead(ahead)
        sent += [ahead] * len(delivered_again(control))
    pauses = [later - before for before, later in pairwise(sent)]
    assert pauses[0] <= 120
    assert all(later >= before for before, later in pairwise(pauses)), "beat asks twice a minute"
    assert pauses[-1] > 8 * pauses[0]
    assert len(sent) < ATTEMPTS
    assert control.run(run.id).delivered_at is None


@pytest.mark.parametrize(("options", "attempts"), [(STAMPED, REFUSED_ATTEMPTS), ({}, ATTEMPTS)])
def test_what_is_given_up_is_the_tasks_result_and_among_the_runs_events(
    control: ControlPlane, clock_ahead: Clock, options: dict[str, Any], attempts: int
) -> None:
    control.workspace()
    run = spoil(control, control.submit(RunKind.PLAN), **options)
    over(control, run)
    for attempt in range(attempts):
        assert control.run(run.id).delivered_at is None, f"after {attempt} attempts"
        clock_ahead(LATER + 1.3 * LONGEST_PAUSE * attempt)
        deliver.deliver_overdue(control.system)
    clock_ahead(LATER + 1.3 * LONGEST_PAUSE * attempts)
    assert deliver.deliver_overdue(control.system) == 1

    with pytest.raises(RunCancelled):
        control.system.celery.AsyncResult(run.id).get(timeout=1)
    last = views.events(control.system.database, views.one(control.system.database, run.id))[-1]
    assert last.event == RunNote.DELIVERY_GIVEN_UP
    assert f"sent {attempts} times again" in last.detail["why"]
    assert control.run(run.id).delivered_at is not None
    clock_ahead(1e6)
    assert deliver.deliver_overdue(control.system) == 0


def test_attempts_are_entered_together_before_any_is_made(
    control: ControlPlane, clock_ahead: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = overdue(control, clock_ahead, 5)
    monkeypatch.setattr(deliver, "TOGETHER", 3)
    entered, send = list[int](), deliver._send

    def sent(system: System, run: Run) -> None:
        with system.database.read() as session:
            entered.append(len(session.scalars(select(Delivery.run)).all()))
        send(system, run)

    monkeypatch.setattr(deliver, "_send", sent)
    assert delivered_again(control) == late
    assert entered == [3, 3, 3, 5, 5]


def test_an_attempt_that_can_not_be_entered_stops_no_other(
    control: ControlPlane, clock_ahead: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = overdue(control, clock_ahead, 3)
    enter = deliver.deliveries.enter_attempt

    def entered(session: Session, found: Overdue, next_at: datetime) -> bool:
        if found.run == late[1]:
            raise ValueError("a fault of this one")
        return enter(session, found, next_at)

    monkeypatch.setattr(deliver.deliveries, "enter_attempt", entered)
    assert delivered_again(control) == [late[0], late[2]]


def test_two_processes_send_an_overdue_outcome_once(
    control: ControlPlane, clock_ahead: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    control.workspace()
    run = over(control, control.submit(RunKind.PLAN))
    control.deliveries()
    clock_ahead(LATER)
    pause, looks = deliver.next_pause, []

    def another_process_first(*attempts: int, **facts: Any) -> float | None:
        looks.append(attempts)
        if len(looks) == 1:
            deliver.deliver_overdue(control.system)
        return pause(*attempts, **facts)

    monkeypatch.setattr(deliver, "next_pause", another_process_first)
    assert delivered_again(control) == [run.id]
    assert len(looks) == 2
