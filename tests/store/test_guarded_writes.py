"""A write states what it expects; what comes too late changes nothing and says so."""

from __future__ import annotations

from datetime import timedelta

import pytest

from workers.core.errors import IllegalTransition, UnknownPool, UnknownRun, UnknownWorkspace
from workers.core.lifecycle import TRANSITIONS, RunEvent, RunStatus
from workers.protocol.kinds import FailureReason, RunKind
from workers.protocol.leases import CancelMode
from workers.store import deliveries, run_queries, runs

S, E = RunStatus, RunEvent

WAYS = {
    S.PENDING: [],
    S.PLANNING: [E.DISPATCHED],
    S.APPLY_PENDING: [E.DISPATCHED, E.PLANNED],
    S.APPLYING: [E.DISPATCHED, E.PLANNED, E.CONFIRMED],
    S.SUCCEEDED: [E.DISPATCHED, E.PLANNED, E.CONFIRMED, E.APPLIED],
    S.FAILED: [E.FAILED],
    S.DISCARDED: [E.DISPATCHED, E.PLANNED, E.DISCARDED],
    S.EXPIRED: [E.DISPATCHED, E.PLANNED, E.EXPIRED],
    S.CANCELLED: [E.CANCELLED],
}


def bring(ledger, run, status):
    ledger.add(run)
    at = S.PENDING
    for event in WAYS[status]:
        assert ledger.record(run, event, at) is not None
        at = TRANSITIONS[at, event]
    assert ledger.get(run).status is status


def test_a_run_that_is_added_is_pending_and_complete(ledger):
    ledger.add("a", RunKind.PLAN_AND_APPLY, priority=7, auto_apply=True, destroy=True, task={"args": ["net"]})
    run = ledger.get("a")
    assert (run.id, run.workspace, run.pool, run.kind, run.status) == (
        "a", "net", "default", RunKind.PLAN_AND_APPLY, S.PENDING
    )  # fmt: skip
    assert (run.priority, run.auto_apply, run.destroy, run.task, run.attempt) == (7, True, True, {"args": ["net"]}, 0)
    assert run.created_at == run.updated_at == ledger.now
    assert run.finished_at is run.agent is run.token is run.outputs is run.delivered_at is None


def test_adding_the_same_id_again_returns_the_run_as_it_is(ledger):
    assert ledger.add("a", priority=1) is True
    ledger.dispatch("a", agent="agent-1")
    assert ledger.add("a", priority=5) is False
    assert (ledger.get("a").status, ledger.get("a").priority) == (S.PLANNING, 1)
    assert ledger.events("a") == ["submitted", "dispatched"]


def test_a_run_of_an_unknown_workspace_or_pool_is_refused_by_name(ledger):
    with pytest.raises(UnknownWorkspace, match=r"'nowhere'.*terraslot workspace list"):
        ledger.add("a", workspace="nowhere")
    with pytest.raises(UnknownPool, match=r"'puddle'.*terraslot pool list"):
        ledger.add("a", pool="puddle")


@pytest.mark.parametrize("status", RunStatus, ids=str)
def test_every_event_either_moves_a_run_by_the_table_or_is_refused(ledger, status):
    for number, event in enumerate(RunEvent):
        run = f"r{number}"
        if (status, event) not in TRANSITIONS:
            with pytest.raises(IllegalTransition):
                ledger.record(run, event, status)
            continue
        bring(ledger, run, status)
        moved = ledger.record(run, event, status)
        assert moved.status is TRANSITIONS[status, event]
        assert (moved.finished_at == ledger.now) is moved.status.is_over
        if not moved.status.is_over:
            assert ledger.record(run, E.CANCELLED, moved.status) is not None


@pytest.mark.parametrize("status", [status for status in RunStatus if status.is_over], ids=str)
def test_a_run_that_is_over_is_revived_by_nothing(ledger, status):
    """F11: a late result finds a status that it does not expect."""
    bring(ledger, "a", status)
    before = ledger.events("a")
    for expected, event in TRANSITIONS:
        assert ledger.record("a", event, expected) is None
    assert ledger.get("a").status is status
    assert ledger.events("a") == before


def test_a_write_with_a_stale_token_changes_nothing(ledger):
    """F11, F26: the report of an attempt that was given up."""
    ledger.add("a")
    ledger.dispatch("a", token="first")
    ledger.record("a", E.AGENT_LOST, S.PLANNING, expect_token="first", token=None)
    ledger.dispatch("a", token="second")
    assert ledger.record("a", E.PLAN_FINISHED, S.PLANNING, expect_token="first") is None
    assert ledger.get("a").status is S.PLANNING
    assert ledger.record("a", E.PLAN_FINISHED, S.PLANNING, expect_token="second").status is S.SUCCEEDED


def test_a_write_for_a_run_that_does_not_exist_changes_nothing(ledger):
    assert ledger.dispatch("nobody") is None


def test_changes_are_written_with_the_transition_and_every_column_comes_back(ledger):
    ledger.add("a")
    ledger.dispatch("a", agent="agent-1", slot=0, token="t" * 32, attempt=1, deadline=ledger.now)
    facts = {
        "changes_add": 1, "changes_change": 2, "changes_destroy": 3, "outputs": {"url": {"value": [1, None, "ü"]}},
        "commit": "c" * 40, "cancel_mode": CancelMode.KILL, "reason": FailureReason.TIMED_OUT, "error": "took too long",
    }  # fmt: skip
    written = ledger.record("a", E.FAILED, S.PLANNING, **facts)
    read = ledger.get("a")
    for run in (written, read):
        assert {name: getattr(run, name) for name in facts} == facts
        assert (run.agent, run.slot, run.token, run.attempt) == ("agent-1", 0, "t" * 32, 1)


def test_an_error_text_with_a_nul_in_it_is_kept(ledger):
    """PostgreSQL refuses NUL in text; the outcome of a run must not be lost to it."""
    ledger.add("a")
    assert ledger.record("a", E.FAILED, S.PENDING, error="before\x00after").error == "before\ufffdafter"


def test_a_note_changes_columns_and_not_the_status(ledger, now):
    ledger.add("a")
    ledger.dispatch("a", token="t")
    with ledger.database.begin() as session:
        noted = runs.note(session, "a", "plan started", expect=S.PLANNING, expect_token="t", now=now, started_at=now)
    assert (noted.status, noted.started_at, noted.updated_at) == (S.PLANNING, now, now)
    assert ledger.events("a") == ["submitted", "dispatched", "plan started"]


@pytest.mark.parametrize("expected", [{"expect": S.PENDING}, {"expect": S.PLANNING, "expect_token": "stale"}])
def test_a_note_that_comes_too_late_changes_nothing(ledger, now, expected):
    ledger.add("a")
    ledger.dispatch("a", token="t")
    with ledger.database.begin() as session:
        assert runs.note(session, "a", "too late", now=now, started_at=now, **expected) is None
    assert ledger.get("a").started_at is None
    assert ledger.events("a") == ["submitted", "dispatched"]


def test_events_tell_each_step_in_order_with_time_status_and_detail(ledger):
    bring(ledger, "a", S.APPLYING)
    ledger.record("a", E.APPLIED, S.APPLYING, detail={"agent": "agent-1", "slot": 0})
    with ledger.database.read() as session:
        events = run_queries.events(session, "a")
    assert [(event.event, event.status) for event in events] == [
        ("submitted", S.PENDING),
        ("dispatched", S.PLANNING),
        ("planned", S.APPLY_PENDING),
        ("confirmed", S.APPLYING),
        ("applied", S.SUCCEEDED),
    ]
    assert [event.at for event in events] == sorted({event.at for event in events})
    assert events[-1].detail == {"agent": "agent-1", "slot": 0}
    assert events[0].detail is None


def test_a_transaction_that_fails_leaves_neither_the_change_nor_its_event(ledger):
    ledger.add("a")

    def fail():
        with ledger.database.begin() as session:
            ledger.record_in(session, "a", E.DISPATCHED, S.PENDING)
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert ledger.get("a").status is S.PENDING
    assert ledger.events("a") == ["submitted"]


def test_an_outcome_is_delivered_once(ledger, now):
    ledger.add("a")
    ledger.add("b", workspace="dns")
    with ledger.database.begin() as session:
        assert runs.mark_delivered(session, ["a"], now) == set(), "not over yet"
    ledger.record("a", E.CANCELLED, S.PENDING)
    with ledger.database.begin() as session:
        assert overdue(session, ledger.now) == [], "too young"
    ledger.record("b", E.CANCELLED, S.PENDING)
    with ledger.database.begin() as session:
        assert overdue(session, ledger.now) == ["a"]
        assert runs.mark_delivered(session, ["a"], now) == {"a"}
        assert runs.mark_delivered(session, ["a"], now) == set()
        assert overdue(session, ledger.now) == []


def test_a_delivery_is_claimed_by_one_until_the_claim_lapses(ledger):
    def claim(at):
        with ledger.database.begin() as session:
            return runs.claim_delivery(session, "a", at, at + timedelta(seconds=60))

    def found(at):
        with ledger.database.read() as session:
            return overdue(session, at)

    ledger.add("a")
    assert claim(ledger.now) is None, "not over yet"
    ledger.record("a", E.CANCELLED, S.PENDING)
    start = ledger.now
    assert claim(start).status is S.CANCELLED
    later = start + timedelta(seconds=60)
    assert (claim(later), found(later)) == (None, [])
    later += timedelta(seconds=1)
    assert found(later) == ["a"]
    assert claim(later).id == "a"
    with ledger.database.begin() as session:
        runs.mark_delivered(session, ["a"], later)
    assert claim(later + timedelta(hours=1)) is None


def test_an_attempt_to_deliver_is_entered_by_one_process_and_is_followed_by_a_pause(ledger, now):
    ledger.add("a")
    ledger.record("a", E.CANCELLED, S.PENDING)
    later = ledger.now + timedelta(seconds=60)
    first, again = deliveries.Overdue("a", 0, None), deliveries.Overdue("a", 1, "no")
    with ledger.database.begin() as session:
        assert deliveries.enter_attempt(session, first, later)
        assert not deliveries.enter_attempt(session, first, later)
        deliveries.refused(session, "a", "no")
        assert overdue(session, later - timedelta(seconds=1)) == []
        assert deliveries.overdue(session, before=later, now=later, limit=10) == [again]
        assert deliveries.enter_attempt(session, again, later)
        assert not deliveries.enter_attempt(session, again, later)
        assert deliveries.overdue(session, before=later, now=later, limit=10) == [("a", 2, None)]


def overdue(session, now):
    return [found.run for found in deliveries.overdue(session, before=now, now=now, limit=10)]


def test_a_run_that_does_not_exist_is_unknown(ledger):
    with pytest.raises(UnknownRun, match=r"'nobody'.*terraslot runs"):
        ledger.get("nobody")
