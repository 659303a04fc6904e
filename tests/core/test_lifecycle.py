"""The transition table is DESIGN's, what it does not name is refused, and every table keyed by it is complete."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.core import lifecycle
from workers.core.errors import IllegalTransition, RunError
from workers.core.lifecycle import (
    ENDINGS,
    EXECUTING,
    HOLDING,
    OVER,
    STEPS,
    TRANSITIONS,
    RunEvent,
    RunNote,
    RunStatus,
    after_agent_lost,
    next_status,
)
from workers.protocol.kinds import FailureReason, Phase, RunKind

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("status", "event", "after"),
    [
        ("pending", "dispatched", "planning"),
        ("planning", "plan_finished", "succeeded"),
        ("planning", "planned", "apply_pending"),
        ("planning", "planned_auto_apply", "applying"),
        ("apply_pending", "confirmed", "applying"),
        ("apply_pending", "discarded", "discarded"),
        ("apply_pending", "expired", "expired"),
        ("applying", "applied", "succeeded"),
        ("planning", "failed", "failed"),
        ("applying", "failed", "failed"),
        ("pending", "cancelled", "cancelled"),
        ("planning", "cancelled", "cancelled"),
        ("applying", "cancelled", "cancelled"),
        ("apply_pending", "cancelled", "cancelled"),
        ("planning", "agent_lost", "pending"),
        ("apply_pending", "agent_lost", "pending"),
    ],
)
def test_a_run_goes_the_way_of_the_design(status: str, event: str, after: str) -> None:
    assert next_status(RunStatus(status), RunEvent(event)) == after


@given(st.sampled_from(sorted(OVER)), st.sampled_from(list(RunEvent)))
def test_a_run_that_is_over_stays_over(status: RunStatus, event: RunEvent) -> None:
    """F11."""
    with pytest.raises(IllegalTransition, match=f"A run that is {status}"):
        next_status(status, event)


def test_every_status_can_be_reached_and_every_one_that_is_not_over_can_be_cancelled() -> None:
    assert set(TRANSITIONS.values()) == set(RunStatus)
    for status in set(RunStatus) - OVER:
        assert next_status(status, RunEvent.CANCELLED) is RunStatus.CANCELLED


def test_an_apply_that_may_have_started_is_never_repeated() -> None:
    """F9."""
    event = after_agent_lost(RunStatus.APPLYING, may_have_applied=True, attempt=1, attempts=9)
    assert event is RunEvent.FAILED


@pytest.mark.parametrize("status", [RunStatus.PLANNING, RunStatus.APPLY_PENDING, RunStatus.APPLYING])
def test_what_certainly_changed_nothing_is_planned_anew_until_its_attempts_are_used_up(status: RunStatus) -> None:
    events = [after_agent_lost(status, may_have_applied=False, attempt=n, attempts=3) for n in (1, 2, 3)]
    assert events == [RunEvent.AGENT_LOST, RunEvent.AGENT_LOST, RunEvent.FAILED]


class TestTheSetsOfStatuses:
    def test_a_status_is_over_or_a_step_that_a_caller_sees(self) -> None:
        assert sorted([*OVER, *STEPS]) == sorted(RunStatus)

    def test_a_run_holds_a_slot_in_every_step_but_the_one_in_which_it_waits_for_one(self) -> None:
        assert set(STEPS) - HOLDING == {RunStatus.PENDING}
        assert EXECUTING.keys() < HOLDING

    def test_every_ending_but_success_has_an_error_of_its_own(self) -> None:
        assert ENDINGS.keys() == OVER - {RunStatus.SUCCEEDED}
        assert {error for error, _ in ENDINGS.values()} == set(RunError.__subclasses__())

    def test_the_celery_state_of_a_status_is_ready_exactly_where_the_run_is_over(self) -> None:
        assert {status for status in RunStatus if status.celery_state in ("SUCCESS", "FAILURE")} == OVER
        assert len({status.celery_state for status in STEPS}) == len(STEPS)

    def test_every_event_moves_a_run_from_some_status(self) -> None:
        assert {event for _, event in TRANSITIONS} == set(RunEvent)

    def test_every_note_is_entered_somewhere_and_named_like_no_event(self) -> None:
        code = "".join(path.read_text() for path in (ROOT / "workers").rglob("*.py"))
        assert [note.name for note in RunNote if f"RunNote.{note.name}" not in code] == []
        assert {note.value for note in RunNote}.isdisjoint(event.value for event in RunEvent)


ENUMS: Mapping[str, type[StrEnum]] = {
    each.__name__: each for each in (RunStatus, RunEvent, RunNote, FailureReason, Phase, RunKind)
}
# What a table leaves out on purpose. Any other table keyed by one of these enums, wherever it stands, is complete.
NOT_EXECUTED = set(RunStatus) - {RunStatus.PLANNING, RunStatus.APPLYING}
PARTIAL: Mapping[tuple[str, str], set[StrEnum]] = {
    # In these, no agent executes anything.
    ("workers/core/lifecycle.py", "EXECUTING"): NOT_EXECUTED,
    # These are no endings, or are told by a result instead of an error.
    ("workers/core/lifecycle.py", "ENDINGS"): {*STEPS, RunStatus.SUCCEEDED},
    # These are printed without a colour.
    ("workers/cli/outcome.py", "STYLES"): {RunStatus.PENDING, RunStatus.DISCARDED, RunStatus.EXPIRED},
    # A pending run says what it waits for instead, and a run that is over is not followed any more.
    ("workers/cli/follow.py", "_WORDS"): {RunStatus.PENDING, *OVER},
}


def test_every_table_that_is_keyed_by_a_status_an_event_or_a_reason_is_complete() -> None:
    found = dict(tables())
    assert {(file, name) for file, name in found if name in vars(lifecycle)} >= {
        ("workers/core/lifecycle.py", name) for name in ("EXECUTING", "ENDINGS", "MEANINGS")
    }
    assert PARTIAL.keys() <= found.keys(), "a table was removed or renamed"
    left_out = {table: set(ENUMS[enum]) - {ENUMS[enum][key] for key in keys} for table, (enum, keys) in found.items()}
    assert {table: missing for table, missing in left_out.items() if missing} == PARTIAL


def tables() -> Iterator[tuple[tuple[str, str], tuple[str, set[str]]]]:
    """Yield file and name of every dictionary of the project that is keyed by one of these enums, and its keys."""
    for folder in ("workers", "agent", "docs", "charts", "bench"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for statement in ast.walk(ast.parse(path.read_text())):
                if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
                    target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
                    for enum, keys in keyed(statement.value):
                        yield (str(path.relative_to(ROOT)), ast.unparse(target)), (enum, keys)


def keyed(value: ast.expr) -> Iterator[tuple[str, set[str]]]:
    """Yield the enum and the keys of every dictionary in an expression whose keys are members of one."""
    for node in ast.walk(value):
        if isinstance(node, ast.Dict):
            names = [ast.unparse(key).partition(".") for key in node.keys if key is not None]
            if names and len({enum for enum, *_ in names}) == 1 and names[0][0] in ENUMS:
                yield names[0][0], {name for *_, name in names}
