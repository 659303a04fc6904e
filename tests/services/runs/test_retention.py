"""What beat's job purges, and when: by the settings, in bounded steps, and safe twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from beat_schedule import BEAT_SCHEDULE
from tests.services.conftest import POOL, ControlPlane
from workers.core.errors import UnknownRun
from workers.protocol.kinds import RunKind
from workers.services.runs import decide, deliver, retention
from workers.store import decisions
from workers.tasks import app

_DAY = 86400.0
_NOTHING = {"runs": 0, "decisions": 0, "pod_failures": 0, "samples": 0}


def end_a_run(control: ControlPlane) -> str:
    run = control.submit(RunKind.PLAN)
    decide.cancel(control.system, run.id)
    deliver.delivered(control.system, [run.id])
    return run.id


def test_each_kind_of_history_goes_when_its_time_is_over(
    control: ControlPlane, clock_ahead: Callable[[float], None]
) -> None:
    control.workspace()
    run = end_a_run(control)
    with control.system.database.begin() as session:
        decisions.record(session, POOL, control.system.now(), current=0, desired=1, reason="cold start", facts={})
        decisions.record_pod_failure(session, POOL, control.system.now(), "pod", "evicted")

    clock_ahead(29 * _DAY)
    assert retention.purge(control.system) == _NOTHING
    clock_ahead(31 * _DAY)
    assert retention.purge(control.system) == _NOTHING | {"decisions": 1, "pod_failures": 1}
    assert control.run(run).id == run
    clock_ahead(91 * _DAY)
    assert retention.purge(control.system) == _NOTHING | {"runs": 1}
    assert retention.purge(control.system) == _NOTHING
    with pytest.raises(UnknownRun):
        control.run(run)


def test_an_outcome_that_comes_once_more_when_its_run_is_purged_delivers_nothing(
    control: ControlPlane, clock_ahead: Callable[[float], None]
) -> None:
    control.workspace()
    run = end_a_run(control)
    clock_ahead(91 * _DAY)
    retention.purge(control.system)

    assert deliver.claim(control.system, run) is None
    deliver.delivered(control.system, [run])


def test_one_call_purges_batch_by_batch_up_to_its_limit(
    control: ControlPlane, clock_ahead: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    monkeypatch.setattr(retention, "BATCHES", 2)
    control.workspace()
    for _ in range(7):
        end_a_run(control)
    clock_ahead(91 * _DAY)

    assert [retention.purge(control.system)["runs"] for _ in range(3)] == [4, 3, 0]


def test_beat_fires_nothing_but_tasks_that_there_are() -> None:
    assert {job["task"] for job in BEAT_SCHEDULE.values()} <= set(app.tasks)
