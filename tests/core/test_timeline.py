"""A run's stages follow one another without a gap, whatever happens to it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.core.lifecycle import TRANSITIONS, EventDetail, RunEvent, RunNote, RunStatus
from workers.core.timeline import STAGES, StageName, durations, timeline, waited_for

BEGIN = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


@dataclass(frozen=True)
class Happened:
    at: datetime
    event: str
    status: RunStatus
    detail: EventDetail | None = None


@st.composite
def histories(draw: st.DrawFn) -> list[Happened]:
    """What can happen to a run, by the table of transitions, with notes in between."""
    at, status = BEGIN, RunStatus.PENDING
    found = [Happened(at, RunNote.SUBMITTED, status, {"actor": "ada"})]
    for _ in range(draw(st.integers(0, 12))):
        at += timedelta(seconds=draw(st.floats(0, 1e5)))
        if draw(st.booleans()):
            found.append(Happened(at, draw(st.sampled_from(RunNote)), status, draw(st.sampled_from([None, {}]))))
            continue
        possible = sorted(event for was, event in TRANSITIONS if was is status)
        if not possible:
            break
        event = draw(st.sampled_from(possible))
        status = TRANSITIONS[status, event]
        found.append(Happened(at, event, status, {"agent": "a", "slot": 0} if event == "dispatched" else None))
    return found


@given(histories())
def test_stages_follow_one_another_and_take_the_time_that_the_run_took(history: list[Happened]) -> None:
    stages, now = timeline(history), history[-1].at + timedelta(hours=1)
    over = history[-1].status.is_over
    assert [stage.end for stage in stages] == [stage.begin for stage in stages[1:]] + [None]
    assert (stages[0].stage, stages[0].begin, stages[0].actor) == (StageName.QUEUED, BEGIN, "ada")
    assert stages[-1].stage is STAGES[history[-1].status]
    assert [stage.stage is StageName.ENDED for stage in stages] == [False] * (len(stages) - 1) + [over]
    until = stages[-1].begin if over else now
    assert sum(durations(stages, now).values()) == pytest.approx((until - BEGIN).total_seconds(), abs=1e-3)


@given(histories())
def test_an_attempt_begins_with_its_slot_and_keeps_it_to_its_end(history: list[Happened]) -> None:
    stages = timeline(history)
    assert stages[0].attempt == 1
    for before, after in pairwise(stages):
        begins_anew = after.stage is StageName.QUEUED
        assert after.attempt == before.attempt + begins_anew or (before.stage, after.stage) == ("queued", "ended")
        executes = after.stage in (StageName.PLAN, StageName.CONFIRMATION, StageName.APPLY)
        assert (after.agent, after.slot) == (("a", 0) if executes else (None, None))
    dispatched = sum(event.event == RunEvent.DISPATCHED for event in history)
    assert sum(stage.stage is StageName.PLAN for stage in stages) == dispatched


def test_a_phase_begins_with_its_slot_and_is_started_by_its_agent() -> None:
    seconds = [BEGIN + timedelta(seconds=each) for each in range(5)]
    history = [
        Happened(seconds[0], RunNote.SUBMITTED, RunStatus.PENDING),
        Happened(seconds[1], RunEvent.DISPATCHED, RunStatus.PLANNING, {"agent": "a", "slot": 1}),
        Happened(seconds[2], RunNote.PLAN_STARTED, RunStatus.PLANNING, {"agent": "a"}),
        Happened(seconds[3], RunNote.PLAN_STARTED, RunStatus.PLANNING, {"agent": "a"}),
        Happened(seconds[4], RunEvent.CANCELLED, RunStatus.CANCELLED, {"actor": "bob", "message": "not now"}),
    ]
    queued, plan, ended = timeline(history)
    assert (queued.started, plan.begin, plan.started, plan.end) == (None, seconds[1], seconds[2], seconds[4])
    assert (ended.event, ended.actor, ended.why, ended.attempt) == ("cancelled", "bob", "not now", 1)
    assert timeline([]) == ()


def test_what_a_queued_run_waited_for_is_named() -> None:
    assert waited_for([]) == "a slot of its pool"
    assert waited_for(["a"]) == "run a of its workspace"
    assert waited_for(["a", "b"]) == "runs a, b of its workspace"
