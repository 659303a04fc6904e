"""What the database knows of workspaces, as people look at them: two statements for any number of them."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased, load_only

from workers.core.lifecycle import RunEvent, RunStatus
from workers.core.waiting import MaintenanceLock
from workers.protocol.kinds import RunKind
from workers.store.models import (
    STATE_CHANGING,
    UNFINISHED,
    UNSETTLED,
    RescuedStateRecord,
    Run,
    RunEventRecord,
    RunPlan,
    Workspace,
)

# Of its latest runs, those among which the last one that applied or planned something is looked for.
_LATEST = 200
# Options of a run whose plan says nothing of the rest of its configuration.
_PARTIAL = {"targets", "replace", "state"}
_BRIEF = load_only(
    Run.workspace, Run.kind, Run.status, Run.actor, Run.message, Run.changes_add, Run.changes_change,
    Run.changes_destroy, Run.created_at, Run.finished_at,
)  # fmt: skip
_of = aliased(Run)
_LAST = (
    sa.select(_of.id)
    .where(_of.workspace == Workspace.name)
    .order_by(_of.created_at.desc(), _of.id.desc())
    .limit(1)
    .correlate(Workspace)
    .scalar_subquery()
)
_UNSAVED = (
    sa.select(RescuedStateRecord.run)
    .where(RescuedStateRecord.workspace == Workspace.name, sa.text(UNSETTLED))
    .limit(1)
    .correlate(Workspace)
    .scalar_subquery()
)


@dataclass(frozen=True, slots=True)
class StoredWorkspace:
    """One workspace: its pool, what holds its runs, how many are not over, by status, and its last one.

    ``unsaved``: the run whose state could not be saved.
    """

    name: str
    pool: str
    lock: MaintenanceLock | None
    unsaved: str | None
    unfinished: Mapping[str, int]
    last: Run | None


def read(
    session: Session, *, text: str | None = None, pool: str | None = None, after: str = "", limit: int
) -> list[StoredWorkspace]:
    """Return workspaces by name, those after the name ``after``; ``text``: a part of the name, in whatever case."""
    lock = Workspace.locked_by, Workspace.locked_at, Workspace.lock_message
    wanted = sa.select(Workspace.name, Workspace.pool, *lock, _UNSAVED.label("unsaved"), Run).options(_BRIEF)
    wanted = wanted.outerjoin(Run, Run.id == _LAST).where(Workspace.name > after)
    if text is not None:
        wanted = wanted.where(Workspace.name.icontains(text, autoescape=True))
    if pool is not None:
        wanted = wanted.where(Workspace.pool == pool)
    rows = session.execute(wanted.order_by(Workspace.name).limit(limit)).all()
    unfinished = _unfinished(session)
    return [
        StoredWorkspace(name, of_pool, _lock(by, at, why), unsaved, unfinished[name], last)
        for name, of_pool, by, at, why, unsaved, last in rows
    ]


def recent(session: Session, workspace: str, limit: int) -> list[Run]:
    """Return the latest runs of a workspace, the newest first, as they are shown among others."""
    return list(session.scalars(_latest(workspace, limit).options(_BRIEF)))


def unfinished(session: Session, workspace: str, limit: int) -> list[Run]:
    """Return the runs of a workspace that are not over, in the order in which they were asked for."""
    wanted = sa.select(Run).where(Run.workspace == workspace, sa.text(UNFINISHED))
    return list(session.scalars(wanted.order_by(Run.created_at, Run.id).limit(limit)))


def last_applied(session: Session, workspace: str) -> Run | None:
    """Return the last run, of the latest ones, whose apply has succeeded."""
    applied = sa.exists().where(RunEventRecord.run == Run.id, RunEventRecord.event == RunEvent.APPLIED)
    return session.scalar(_of_latest(workspace, sa.text(STATE_CHANGING), applied).limit(1))


def last_planned(session: Session, workspace: str) -> tuple[Run, dict[str, Any] | None] | None:
    """Return the last plan, of the latest ones, that was made of the whole configuration, with its detail."""
    plans = _of_latest(workspace, Run.kind == RunKind.PLAN, sa.not_(Run.destroy))
    whole = (run for run in session.scalars(plans) if not _PARTIAL & (run.options or {}).keys())
    run = next(whole, None)
    if run is None:
        return None
    kept = session.get(RunPlan, run.id)
    return run, kept.detail if kept is not None and kept.attempt == run.attempt else None


def _of_latest(workspace: str, *conditions: Any) -> sa.Select[Run]:
    latest = _latest(workspace, _LATEST).with_only_columns(Run.id)
    succeeded = sa.select(Run).where(Run.id.in_(latest), Run.status == RunStatus.SUCCEEDED, *conditions)
    return succeeded.order_by(Run.created_at.desc(), Run.id.desc())


def _latest(workspace: str, limit: int) -> sa.Select[Run]:
    newest = Run.created_at.desc(), Run.id.desc()
    return sa.select(Run).where(Run.workspace == workspace).order_by(*newest).limit(limit)


def _unfinished(session: Session) -> defaultdict[str, dict[str, int]]:
    counts = sa.select(Run.workspace, Run.status, sa.func.count()).where(sa.text(UNFINISHED))
    found = defaultdict[str, dict[str, int]](dict)
    for workspace, status, count in session.execute(counts.group_by(Run.workspace, Run.status)):
        found[workspace][status.value] = count
    return found


def _lock(by: str | None, at: datetime | None, message: str | None) -> MaintenanceLock | None:
    return None if at is None else MaintenanceLock(by or "", at, message or "")
