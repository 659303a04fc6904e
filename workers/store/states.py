"""States that runs could not save, and locks of states that they have met. They go with their run."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, exists, select, update
from sqlalchemy.orm import Session

from workers.core.lifecycle import RunStatus
from workers.protocol.states import RescuedState, StateLock
from workers.store import workspace_queue
from workers.store.database import insert_if_new
from workers.store.models import Base, RescuedStateRecord, Run, RunEventRecord, StateLockRecord

# Runs of a workspace among which one that has left its state locked is looked for.
_LATEST = 20
PUSHED, GIVEN_UP = "pushed", "given up"
_states = Base.metadata.tables["rescued_states"]
_locks = Base.metadata.tables["state_locks"]
_runs = Base.metadata.tables["runs"]
_latest = (
    select(_runs.c.status)
    .where(_runs.c.workspace == bindparam("workspace"))
    .order_by(_runs.c.created_at.desc())
    .limit(_LATEST)
    .subquery()
)
_MAY_BE_LOCKED = select(exists().where(_latest.c.status.in_((RunStatus.FAILED, RunStatus.CANCELLED))))


def keep(session: Session, run: Run, found: RescuedState, content: str | None) -> None:
    """Enter a state that could not be saved, ``content`` encrypted with its pool's payload key."""
    about = {"run": run.id, "workspace": run.workspace, "size": found.bytes}
    insert_if_new(session, _states, **about, content=content, in_transit=content is not None)


def of(session: Session, run: str) -> RescuedStateRecord | None:
    """Return the state that a run could not save; None where it has saved it."""
    return session.get(RescuedStateRecord, run)


def in_transit(session: Session) -> list[str]:
    """Return the runs whose states the platform's keys do not decrypt yet."""
    return list(session.scalars(select(_states.c.run).where(_states.c.in_transit)))


def with_content(session: Session) -> list[str]:
    """Return the runs whose states are kept here, encrypted with the platform's keys."""
    kept = _states.c.content.is_not(None), ~_states.c.in_transit
    return list(session.scalars(select(_states.c.run).where(*kept)))


def replace(session: Session, run: str, content: str, expect: str) -> None:
    """Store a state as it is encrypted now, in the place of what was read; else nothing changes."""
    there = _states.c.run == run, _states.c.content == expect
    session.execute(update(_states).where(*there).values(content=content, in_transit=False))


def settle(session: Session, run: str, workspace: str, how: str, now: datetime) -> bool:
    """Store what has become of a state, and let the runs of its workspace go on; False where it is settled already.

    One that is in its backend again is kept here no longer. One that was given up is: somebody may want it after all.
    """
    workspace_queue.lock_queue(session, workspace)
    values: dict[str, Any] = {"settled_at": now, "settled_as": how}
    if how == PUSHED:
        values |= {"content": None, "in_transit": False}
    # What was given up may be pushed after all; what was pushed is gone.
    still = _states.c.settled_as.is_distinct_from(PUSHED) if how == PUSHED else _states.c.settled_at.is_(None)
    settled = update(_states).where(_states.c.run == run, still).values(values).returning(_states.c.run)
    changed = session.scalar(settled)
    workspace_queue.choose_next(session, workspace)
    return changed is not None


def enter_lock(session: Session, run: Run, lock: StateLock, holder: str | None, now: datetime) -> None:
    """Enter the lock that a run has met."""
    content = lock.model_dump(mode="json", exclude_defaults=True)
    session.merge(StateLockRecord(run=run.id, lock=content, met_at=now, holder=holder, ended_at=None))


def lock_of(session: Session, run: str) -> StateLockRecord | None:
    """Return the lock that a run has met."""
    return session.get(StateLockRecord, run)


def lock_met(session: Session, run: str) -> StateLockRecord | None:
    """Return the lock that a run has met, or else the last one that others have met and this run holds."""
    if (met := lock_of(session, run)) is not None:
        return met
    of_holder = select(StateLockRecord).where(StateLockRecord.holder == run)
    return session.scalar(of_holder.order_by(StateLockRecord.met_at.desc()).limit(1))


def end_lock(session: Session, workspace: str, lock: str, now: datetime) -> list[str]:
    """Store that a lock of a workspace's state was ended; return the runs that had met it. A second time, none."""
    of_workspace = select(Run.id).where(Run.workspace == workspace)
    unended = StateLockRecord.run.in_(of_workspace), StateLockRecord.ended_at.is_(None)
    met = [each for each in session.scalars(select(StateLockRecord).where(*unended)) if each.lock["id"] == lock]
    for record in met:
        record.ended_at = now
    return [record.run for record in met]


def may_be_locked(session: Session, workspace: str) -> bool:
    """Whether one of the latest runs of a workspace has ended in a way that may have left its state locked."""
    return bool(session.scalar(_MAY_BE_LOCKED, {"workspace": workspace}))


def candidates(session: Session, workspace: str, statuses: Collection[str], limit: int) -> list[Run]:
    """Return runs that may hold the lock of a workspace's state: its latest ones, and all that execute now."""
    latest = select(Run.id).where(Run.workspace == workspace).order_by(Run.created_at.desc()).limit(limit)
    active = select(Run.id).where(Run.status.in_(statuses))
    return list(session.scalars(select(Run).where(Run.id.in_(latest) | Run.id.in_(active))))


def events(session: Session, runs: Collection[str]) -> dict[str, list[RunEventRecord]]:
    """Return what happened to each of these runs, in order."""
    happened: dict[str, list[RunEventRecord]] = {run: [] for run in runs}
    for event in session.scalars(
        select(RunEventRecord).where(RunEventRecord.run.in_(runs)).order_by(RunEventRecord.id)
    ):
        happened[event.run].append(event)
    return happened
