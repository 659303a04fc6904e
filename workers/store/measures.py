"""What is counted of all runs at once: those that wait, outcomes that are overdue, states that could not be saved."""

from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session

from workers.store.models import RUNNABLE, STATE_CHANGING, UNDELIVERED, UNSETTLED, WAITING, RescuedStateRecord, Run


class Waiting(NamedTuple):
    """The runs of a pool that wait for one thing, ``slot`` or ``workspace``: how many, and since when the first does.

    One waits for its workspace while another run of that is not over, or somebody has locked it.
    """

    pool: str
    cause: str
    runs: int
    since: datetime


def waiting(session: Session) -> list[Waiting]:
    """Return which runs wait for what; read from the partial indexes of those that do."""
    columns = Run.pool, sa.func.count(), sa.func.min(Run.created_at)
    for_slot = sa.select(*columns).where(sa.text(RUNNABLE)).group_by(Run.pool)
    held = sa.text(STATE_CHANGING), sa.text(WAITING), sa.text(f"NOT {RUNNABLE}")
    for_workspace = sa.select(*columns).where(*held).group_by(Run.pool)
    causes = (("slot", for_slot), ("workspace", for_workspace))
    return [
        Waiting(pool, cause, number, since)
        for cause, wanted in causes
        for pool, number, since in session.execute(wanted)
    ]


def undelivered(session: Session, before: datetime) -> int:
    """Return how many runs were over before that moment, and have not had their outcome delivered."""
    late = sa.select(sa.func.count()).select_from(Run).where(sa.text(UNDELIVERED), Run.finished_at < before)
    return session.scalar(late) or 0


def unsettled_states(session: Session) -> int:
    """Return how many states could not be saved, and were neither pushed nor given up."""
    unsettled = sa.select(sa.func.count()).select_from(RescuedStateRecord).where(sa.text(UNSETTLED))
    return session.scalar(unsettled) or 0
