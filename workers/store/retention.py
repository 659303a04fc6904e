"""Purge old rows, a batch at a time, the oldest first.

A run goes with its events, and only when it is over and its outcome was delivered. Two processes at once remove
different rows, or the second one none.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import Select, Table, delete, select
from sqlalchemy.orm import Session

from workers.store.models import Base

_runs = Base.metadata.tables["runs"]
_events = Base.metadata.tables["run_events"]
DECISIONS = Base.metadata.tables["scaling_decisions"]
POD_FAILURES = Base.metadata.tables["pod_failures"]


def purge_runs(session: Session, before: datetime, limit: int) -> int:
    """Remove up to ``limit`` runs that were over before ``before``, and their events; return how many."""
    runs = list(session.scalars(old_runs(before, limit)))
    session.execute(delete(_events).where(_events.c.run.in_(runs)))
    session.execute(delete(_runs).where(_runs.c.id.in_(runs)))
    return len(runs)


def purge_rows(session: Session, table: Table, before: datetime, limit: int) -> int:
    """Remove up to ``limit`` rows of ``table`` that are older than ``before``; return how many."""
    rows = list(session.scalars(old_rows(table, before, limit)))
    session.execute(delete(table).where(table.c.id.in_(rows)))
    return len(rows)


def old_runs(before: datetime, limit: int) -> Select[Any]:
    """Return the query for the ids of runs to be purged."""
    return (
        select(_runs.c.id)
        # A run that was over before was created before as well, and that column has an index.
        .where(_runs.c.created_at < before, _runs.c.finished_at < before, _runs.c.delivered_at.is_not(None))
        .order_by(_runs.c.created_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )


def old_rows(table: Table, before: datetime, limit: int) -> Select[Any]:
    """Return the query for the ids of the rows of ``table`` to be purged."""
    old = select(table.c.id).where(table.c.at < before).order_by(table.c.at)
    return old.limit(limit).with_for_update(skip_locked=True)
