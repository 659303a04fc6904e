"""Two transactions at once, the first held open by the test while the second waits for it or comes after it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from workers.core.errors import StillInUse, UnknownPool, UnknownWorkspace
from workers.core.lifecycle import RunEvent, RunStatus
from workers.core.waiting import MaintenanceLock
from workers.protocol.kinds import RunKind
from workers.protocol.sources import DirectorySource
from workers.specs.pools import PoolSpec
from workers.specs.workspaces import WorkspaceSpec
from workers.store import pools, run_queries, runs, workspace_queue, workspaces
from workers.store.models import Run

S, E = RunStatus, RunEvent
PLAN, APPLY = RunKind.PLAN, RunKind.PLAN_AND_APPLY


@pytest.mark.parametrize("kind", RunKind, ids=str)
def test_of_two_dispatchers_of_one_run_one_wins(ledger, rival, meanwhile, kind):
    ledger.add("a", kind)
    with ledger.database.begin() as session:
        assert ledger.record_in(session, "a", E.DISPATCHED, S.PENDING, agent="first") is not None
        second = meanwhile(lambda: rival.dispatch("a", agent="second"))
    assert second.result() is None
    assert ledger.get("a").agent == "first"
    assert ledger.events("a") == ["submitted", "dispatched"]


def test_a_confirmation_that_came_first_keeps_a_run_from_expiring(ledger, rival, meanwhile):
    ledger.add("a")
    ledger.dispatch("a")
    ledger.record("a", E.PLANNED, S.PLANNING)
    with ledger.database.begin() as session:
        assert ledger.record_in(session, "a", E.CONFIRMED, S.APPLY_PENDING) is not None
        expiry = meanwhile(lambda: rival.record("a", E.EXPIRED, S.APPLY_PENDING))
    assert expiry.result() is None
    assert ledger.get("a").status is S.APPLYING


def test_a_run_that_was_given_up_at_the_moment_its_report_came_stays_given_up(ledger, rival, meanwhile):
    """F11."""
    ledger.add("a", PLAN)
    ledger.dispatch("a", token="t")
    with ledger.database.begin() as session:
        assert ledger.record_in(session, "a", E.AGENT_LOST, S.PLANNING, token=None) is not None
        report = meanwhile(lambda: rival.record("a", E.PLAN_FINISHED, S.PLANNING, expect_token="t"))
    assert report.result() is None
    assert ledger.get("a").status is S.PENDING


@pytest.mark.parametrize("kind", RunKind, ids=str)
def test_a_run_that_is_added_twice_at_once_is_there_once(ledger, rival, meanwhile, kind):
    with ledger.database.begin() as session:
        assert ledger.add_in(session, "a", kind, priority=1) is True
        second = meanwhile(lambda: rival.add("a", kind, priority=2))
    assert second.result() is False
    assert ledger.get("a").priority == 1
    assert ledger.events("a") == ["submitted"]


def test_a_run_loses_its_place_to_a_more_urgent_one_that_is_just_being_added(ledger, rival, meanwhile):
    ledger.add("a")
    with ledger.database.begin() as session:
        ledger.add_in(session, "b", priority=1)
        dispatch = meanwhile(lambda: rival.dispatch("a"))
    assert dispatch.result() is None
    assert ledger.runnable() == ["b"]


def test_a_run_that_is_added_while_the_active_one_ends_becomes_runnable(ledger, rival, meanwhile):
    ledger.add("a")
    ledger.dispatch("a")
    with ledger.database.begin() as session:
        ledger.record_in(session, "a", E.FAILED, S.PLANNING)
        added = meanwhile(lambda: rival.add("b"))
    assert added.result() is True
    assert ledger.runnable() == ["b"]


def test_a_run_that_is_added_while_the_first_starts_waits(ledger, rival, meanwhile):
    ledger.add("a")
    with ledger.database.begin() as session:
        ledger.record_in(session, "a", E.DISPATCHED, S.PENDING)
        added = meanwhile(lambda: rival.add("b", priority=9))
    assert added.result() is True
    assert ledger.runnable() == []


def test_a_run_that_is_just_being_started_goes_on_when_its_workspace_is_locked(ledger, rival, meanwhile):
    ledger.add("a")
    ledger.add("b")
    with ledger.database.begin() as session:
        ledger.record_in(session, "a", E.DISPATCHED, S.PENDING)
        locking = meanwhile(lambda: lock(rival))
    assert locking.result() == "a", "whoever locks is told what goes on"
    ledger.record("a", E.FAILED, S.PLANNING)
    assert ledger.runnable() == []


def test_a_run_is_not_started_in_a_workspace_that_is_just_being_locked(ledger, rival, meanwhile):
    ledger.add("a")
    with ledger.database.begin() as session:
        workspace_queue.set_maintenance_lock(session, "net", MaintenanceLock("ana", ledger.now, "why"), ledger.now)
        dispatch = meanwhile(lambda: rival.dispatch("a"))
    assert dispatch.result() is None
    assert ledger.get("a").status is S.PENDING


def lock(ledger):
    with ledger.database.begin() as session:
        workspace_queue.set_maintenance_lock(session, "net", MaintenanceLock("ana", ledger.now, "why"), ledger.now)
        active = run_queries.active_in(session, "net")
    return active and active.id


def test_a_run_of_a_workspace_that_is_just_being_deleted_is_refused(ledger, rival, meanwhile):
    """F29."""
    with ledger.database.begin() as session:
        workspaces.delete(session, "net")
        added = meanwhile(lambda: rival.add("a"))
    with pytest.raises(UnknownWorkspace):
        added.result()


@pytest.mark.parametrize("kind", RunKind, ids=str)
def test_a_workspace_whose_first_run_is_just_being_added_is_not_deleted(ledger, rival, meanwhile, kind):
    """F29."""

    def delete():
        with rival.database.begin() as session:
            workspaces.delete(session, "net")

    with ledger.database.begin() as session:
        ledger.add_in(session, "a", kind)
        deletion = meanwhile(delete)
    with pytest.raises(StillInUse, match="run a is not over"):
        deletion.result()


def test_a_run_or_workspace_of_a_pool_that_is_just_being_deleted_is_refused(ledger, rival, meanwhile, now):
    """F29: the run's workspace has moved on, its own pool goes."""
    with ledger.database.begin() as session:
        pools.save(session, PoolSpec(name="old"), now)

    def save():
        with rival.database.begin() as session:
            workspaces.save(session, WorkspaceSpec(name="web", pool="old", source=DirectorySource(path="/")), now)

    with ledger.database.begin() as session:
        pools.delete(session, "old")
        added = meanwhile(lambda: rival.add("a", pool="old"))
        saved = meanwhile(save)
    for refused in (added, saved):
        with pytest.raises(UnknownPool, match="'old'"):
            refused.result()


def test_a_pool_whose_first_run_is_just_being_added_is_not_deleted(ledger, rival, meanwhile, now):
    """F29."""
    with ledger.database.begin() as session:
        pools.save(session, PoolSpec(name="old"), now)

    def delete():
        with rival.database.begin() as session:
            pools.delete(session, "old")

    with ledger.database.begin() as session:
        ledger.add_in(session, "a", pool="old")
        deletion = meanwhile(delete)
    with pytest.raises(StillInUse, match="run a is not over"):
        deletion.result()


def test_four_dispatchers_and_reporters_at_once_break_no_rule_and_leave_nothing_behind(ledger, open_database, url):
    for number in range(24):
        ledger.add(f"r{number}", (PLAN, APPLY)[number % 2], workspace=("net", "dns")[number % 4 // 2])

    def work(_):
        own = type(ledger)(open_database(url), ledger.now)
        done = 0
        while waiting := own.runnable():
            for run in waiting:
                if own.dispatch(run):
                    assert own.record(run, E.PLAN_FINISHED, S.PLANNING) is not None
                    done += 1
        return done

    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(work, range(4)))
    with ledger.database.read() as session:
        statuses = list(session.scalars(select(Run.status)))
    # A worker stops when nobody may start at that moment; the last runs of a workspace are then for those still busy.
    assert statuses == [S.SUCCEEDED] * 24
    assert sum(done) == 24


def test_who_changes_several_runs_waits_for_who_changes_one_of_them_and_neither_for_ever(ledger, rival, meanwhile):
    """The one has the run's workspace, and wants the run; the other began with a run of another workspace."""
    for run, workspace in (("a", "net"), ("b", "dns")):
        ledger.add(run, workspace=workspace)
        ledger.dispatch(run, token=run)

    def end_both() -> list[str]:
        with rival.database.begin() as session:
            known = runs.lock(session, ["b", "a", "none"])
            return [run.id for run in known.values() if rival.record_in(session, run.id, E.FAILED, S.PLANNING)]

    with ledger.database.begin() as session:
        workspace_queue.lock_workspace_of(session, "a")
        ended = meanwhile(end_both)
        assert ledger.record_in(session, "a", E.CANCELLED, S.PLANNING) is not None
    assert ended.result() == ["b"]
    assert [ledger.get(run).status for run in "ab"] == [S.CANCELLED, S.FAILED]


def test_what_is_locked_first_is_read_as_it_is_then(ledger, rival, meanwhile):
    """A batch decides by what it has locked, not by what it had read before."""
    ledger.add("a")
    ledger.dispatch("a", token="t")

    def read() -> tuple[RunStatus, RunStatus]:
        with rival.database.begin() as session:
            return runs.lock(session, ["a"])["a"].status, runs.get(session, "a").status

    with ledger.database.begin() as session:
        assert ledger.record_in(session, "a", E.FAILED, S.PLANNING) is not None
        seen = meanwhile(read)
    assert seen.result() == (S.FAILED, S.FAILED)
