"""The transition table is DESIGN's; everything that it does not name is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.core.errors import IllegalTransition
from workers.core.lifecycle import OVER, TRANSITIONS, RunEvent, RunStatus, after_agent_lost, next_status


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
