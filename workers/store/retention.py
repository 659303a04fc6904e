"""Purge old rows, a batch at a time, the oldest first.

A run goes with its events, and only when it is over, its outcome was delivered, and no state that it could not save
waits for a person. Two processes at once remove
different rows, or the second one none.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import Select, delete, exists, select
from sqlalchemy.orm import Session

from workers.store.models import PodFailure, RescuedStateRecord, Run, RunEventRecord, ScalingDecision

# No object of the session is one of these rows.
_UNSEEN = {"synchronize_session": False}

History = type[Run] | type[ScalingDecision] | type[PodFailure]


def purge(session: Session, rows: History, before: datetime, limit: int) -> int:
    """Remove up to ``limit`` rows that are older than ``before``, of runs since their end; return how many."""
    ids = list(session.scalars(old(rows, before, limit)))
    if rows is Run:
        session.execute(delete(RunEventRecord).where(RunEventRecord.run.in_(ids)), execution_options=_UNSEEN)
    session.execute(delete(rows).where(rows.id.in_(ids)), execution_options=_UNSEEN)
    return len(ids)


def old(rows: History, before: datetime, limit: int) -> Select[Any]:
    """Return the query for the ids of the rows to be purged."""
    query = select(rows.id).limit(limit).with_for_update(skip_locked=True)
    if not issubclass(rows, Run):
        return query.where(rows.at < before).order_by(rows.at)
    # A run that was over before was created before as well, and that column has an index.
    unsaved = exists().where(RescuedStateRecord.run == Run.id, RescuedStateRecord.settled_at.is_(None))
    over = Run.created_at < before, Run.finished_at < before, Run.delivered_at.is_not(None), ~unsaved
    return query.where(*over).order_by(Run.created_at)
