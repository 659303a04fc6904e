"""What is old and over is purged, a batch at a time; nothing else is."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import event, insert, select, text

from workers.core.lifecycle import RunEvent, RunStatus
from workers.protocol.kinds import RunKind
from workers.store import decisions, retention, runs
from workers.store.models import Base, PodFailure, Run, RunEventRecord, ScalingDecision

E, S = RunEvent, RunStatus
TABLES = Base.metadata.tables
LATER = timedelta(days=1)


def end(ledger, run, *, delivered=True):
    """Let a run that is there end, and its caller know."""
    ledger.record(run, E.CANCELLED, S.PENDING)
    if delivered:
        with ledger.database.begin() as session:
            assert runs.mark_delivered(session, [run], ledger.now)


def purge(ledger, before, limit=100, rows=Run):
    with ledger.database.begin() as session:
        return retention.purge(session, rows, before, limit)


def left(ledger, column=TABLES["runs"].c.id):
    with ledger.database.read() as session:
        return list(session.scalars(select(column).order_by(column)))


def test_a_run_that_was_over_and_delivered_goes_with_its_events_and_no_other_is_touched(ledger):
    for run in ("gone", "kept"):
        ledger.add(run)
    end(ledger, "gone")

    assert purge(ledger, ledger.now + LATER) == 1

    assert left(ledger) == ["kept"]
    assert left(ledger, RunEventRecord.run) == ["kept"]
    assert ledger.runnable() == ["kept"]


def test_what_ended_since_stays_however_long_ago_it_was_asked_for(ledger):
    ledger.add("slow")
    asked_for = ledger.now
    end(ledger, "slow")

    assert purge(ledger, asked_for + timedelta(milliseconds=1)) == 0
    assert left(ledger) == ["slow"]


@pytest.mark.parametrize("status", [status for status in RunStatus if not status.is_over])
def test_a_run_that_is_not_over_stays_whatever_its_age(ledger, status):
    way = [(E.DISPATCHED, S.PENDING), (E.PLANNED, S.PLANNING), (E.CONFIRMED, S.APPLY_PENDING)]
    ledger.add("old")
    for happening, expect in way[: [S.PENDING, S.PLANNING, S.APPLY_PENDING, S.APPLYING].index(status)]:
        assert ledger.record("old", happening, expect)
    assert ledger.get("old").status is status

    assert purge(ledger, ledger.now + LATER) == 0
    assert left(ledger) == ["old"]


def test_an_outcome_that_was_not_delivered_stays(ledger):
    ledger.add("untold")
    end(ledger, "untold", delivered=False)

    assert purge(ledger, ledger.now + LATER) == 0
    assert left(ledger) == ["untold"]


def test_a_batch_takes_the_oldest_and_no_more_than_it_may(ledger):
    for number in range(5):
        ledger.add(f"run-{number}", RunKind.PLAN)
        end(ledger, f"run-{number}")

    assert purge(ledger, ledger.now + LATER, limit=2) == 2
    assert left(ledger) == ["run-2", "run-3", "run-4"]
    assert [purge(ledger, ledger.now + LATER, limit=2) for _ in range(3)] == [2, 1, 0]


@pytest.mark.parametrize("backend", ["postgresql"])
def test_two_at_once_remove_different_runs_and_wait_for_nobody(ledger, rival):
    for number in range(3):
        ledger.add(f"run-{number}", RunKind.PLAN)
        end(ledger, f"run-{number}")

    with ledger.database.begin() as session:
        assert retention.purge(session, Run, ledger.now + LATER, 2) == 2
        assert purge(rival, ledger.now + LATER) == 1

    assert left(ledger) == []


def test_old_decisions_and_failures_of_pods_go_of_every_pool_and_younger_ones_stay(ledger, now):
    with ledger.database.begin() as session:
        for pool in ("default", "deleted-since"):
            for at in (now, now + LATER):
                decisions.record(session, pool, at, current=0, desired=1, reason="cold start", facts={})
                decisions.record_pod_failure(session, pool, at, "pod", "evicted")

    before = now + timedelta(seconds=1)
    assert purge(ledger, before, rows=ScalingDecision) == 2
    assert purge(ledger, before, rows=PodFailure) == 2
    assert purge(ledger, before, rows=ScalingDecision) == 0

    assert left(ledger, ScalingDecision.at) == left(ledger, PodFailure.at) == [now + LATER] * 2


HISTORY = {"runs": Run, "scaling_decisions": ScalingDecision, "pod_failures": PodFailure}


def enter_history(ledger, *, length):
    """``length`` of everything, none of it old."""
    ledger.add("run", RunKind.PLAN)
    end(ledger, "run")
    at, runs_of = ledger.now, TABLES["runs"]
    facts = {"current": 0, "desired": 1, "facts": {}, "pod": "pod", "pool": "default", "reason": "because", "at": at}
    with ledger.database.begin() as session:
        run = session.execute(select(runs_of)).mappings().one()
        session.execute(insert(runs_of), [{**run, "id": f"run-{number}"} for number in range(length)])
        for table in (TABLES["scaling_decisions"], TABLES["pod_failures"]):
            row = {name: value for name, value in facts.items() if name in table.c}
            session.execute(insert(table), [row] * length)
    with ledger.database.begin() as session:
        session.execute(text("ANALYZE"))


@pytest.mark.parametrize("table", HISTORY)
@pytest.mark.parametrize("backend", ["sqlite"])
def test_sqlite_finds_by_an_index_that_nothing_is_old(ledger, now, table):
    enter_history(ledger, length=1000)
    with ledger.database.read() as session:
        plan = explained(session, "EXPLAIN QUERY PLAN ", retention.old(HISTORY[table], now, 500))
    steps = [row[-1].split(" (")[0] for row in plan if not row[-1].startswith("CORRELATED")]
    of_states = ["SEARCH rescued_states USING INDEX sqlite_autoindex_rescued_states_1"] if table == "runs" else []
    assert steps == [f"SEARCH {table} USING {index_of(table)}", *of_states]


@pytest.mark.parametrize("table", HISTORY)
@pytest.mark.parametrize("backend", ["postgresql"])
def test_postgresql_finds_by_an_index_that_nothing_is_old(ledger, now, table):
    enter_history(ledger, length=1000)
    with ledger.database.begin() as session:
        ((explanation,),) = explained(
            session, "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ", retention.old(HISTORY[table], now, 500)
        )
    plan = explanation[0]["Plan"]
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 5


def index_of(table):
    return "INDEX ix_runs_recent" if table == "runs" else f"COVERING INDEX ix_{table}_at"


def explained(session, prefix, statement):
    """What the database says of the very statement that the store sends."""
    sent = []
    connection = session.connection()
    event.listen(connection, "before_cursor_execute", lambda *args: sent.append(args[2:4]))
    assert connection.execute(statement).all() == []
    cursor = connection.connection.cursor()
    cursor.execute(prefix + sent[0][0], sent[0][1])
    return cursor.fetchall()
