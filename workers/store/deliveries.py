"""Outcomes that are overdue: which are to be sent again, how often they were, and why the last attempt failed."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import func, or_, select, text, update
from sqlalchemy.orm import Session

from workers.store.database import insert_if_new
from workers.store.models import UNDELIVERED, Base, Delivery, Run
from workers.store.runs import unclaimed

_deliveries = Base.metadata.tables["deliveries"]


class Overdue(NamedTuple):
    """A run whose outcome is to be sent again. ``error``: why it could not be sent the last time."""

    run: str
    attempts: int
    error: str | None


def overdue(session: Session, *, before: datetime, now: datetime, limit: int) -> list[Overdue]:
    """Return runs that were over before ``before`` and whose delivery is neither done nor claimed, oldest first.

    Without those whose pause since the last attempt is not over ``now``. The runs themselves are not read: one that
    can't be read keeps no other from being found.
    """
    late = (
        select(Run.id, func.coalesce(Delivery.attempts, 0), Delivery.error)
        .outerjoin(Delivery, Delivery.run == Run.id)
        .where(text(UNDELIVERED), Run.finished_at < before, unclaimed(now))
        .where(or_(Delivery.next_at.is_(None), Delivery.next_at <= now))
        .order_by(Run.finished_at)
        .limit(limit)
    )
    return [Overdue(*row) for row in session.execute(late)]


def enter_attempt(session: Session, found: Overdue, next_at: datetime) -> bool:
    """Enter an attempt before it is made; False where another process has. ``next_at``: the earliest next."""
    if insert_if_new(session, _deliveries, run=found.run, attempts=found.attempts + 1, next_at=next_at):
        return True
    of_run = _deliveries.c.run == found.run, _deliveries.c.attempts == found.attempts
    claimed = update(_deliveries).where(*of_run).values(attempts=found.attempts + 1, next_at=next_at, error=None)
    return session.scalar(claimed.returning(_deliveries.c.run)) is not None


def refused(session: Session, run: str, error: str) -> None:
    """Store why an outcome could not be sent."""
    session.execute(update(_deliveries).where(_deliveries.c.run == run).values(error=error))
