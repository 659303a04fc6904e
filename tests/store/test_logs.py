"""Pieces of logs on both databases: one of each number, within a run's budget, gone with their run."""

from __future__ import annotations

from sqlalchemy import delete, select

from workers.core.logs import PIECE_BYTES, STORED_BYTES
from workers.store import logs
from workers.store.models import Run, RunLogPiece


def add(ledger, number, content, run="run"):
    with ledger.database.begin() as session:
        return logs.add(session, run, number, last=f"{number}-0", lines=1, content=content)


def pieces(ledger):
    with ledger.database.read() as session:
        return list(session.execute(select(RunLogPiece.number, RunLogPiece.content).order_by(RunLogPiece.number)))


def test_a_piece_is_stored_once_and_found_by_the_one_before(ledger):
    ledger.add("run")
    with ledger.database.read() as session:
        assert logs.newest(session, "run") == (0, "0")
    assert add(ledger, 1, b"\x00one")
    assert not add(ledger, 1, b"other")
    assert add(ledger, 2, b"two")
    with ledger.database.read() as session:
        assert logs.newest(session, "run") == (2, "2-0")
        assert [logs.following(session, "run", before).content for before in (0, 1)] == [b"\x00one", b"two"]
        assert logs.following(session, "run", 2) is None


def test_middle_pieces_are_emptied_where_the_budget_of_their_run_is_spent(ledger):
    for run in ("run", "other"):
        ledger.add(run)
        for number in range(1, 5):
            assert add(ledger, number, bytes(PIECE_BYTES), run)
    with ledger.database.read() as session:
        kept = session.execute(select(RunLogPiece.number, RunLogPiece.content).where(RunLogPiece.run == "run")).all()
    assert {number for number, content in kept if content} == {1, 4}
    assert sum(len(content) for _, content in kept) <= STORED_BYTES


def test_pieces_go_with_their_run_whoever_deletes_it(ledger):
    """The last release, which does not know them, purges as well."""
    ledger.add("run")
    add(ledger, 1, b"one")
    with ledger.database.begin() as session:
        session.connection().exec_driver_sql("DELETE FROM run_events")
        session.execute(delete(Run))
    assert pieces(ledger) == []
