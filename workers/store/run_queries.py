"""Runs as they are found: by id, the latest, those that hold a slot; and what happened to them.

:mod:`workers.store.runs` writes them, :mod:`workers.store.workspace_queue` has those that wait.
"""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, Select, TextClause, bindparam, or_, select, text, tuple_
from sqlalchemy.orm import Session

from workers.core.errors import UnknownRun
from workers.core.lifecycle import RunNote, RunStatus
from workers.protocol.kinds import RunKind
from workers.protocol.names import RUN_ID
from workers.store.models import ACTIVE, STATE_CHANGING, UNFINISHED, Run, RunEventRecord

_NAMED_AT_MOST = 5  # runs in the error about a prefix of several, and of those that another has waited for
_UNFINISHED = text(UNFINISHED)
_LATEST = 50  # runs of a workspace among which those are looked for
_STANDINGS = (
    select(Run.id, Run.status, Run.attempt, Run.updated_at)
    .where(_UNFINISHED)
    .order_by(Run.created_at.desc())
    .limit(bindparam("limit"))
)
_EVENTS_OF = (
    select(RunEventRecord)
    .where(RunEventRecord.run.in_(bindparam("ids", expanding=True)))
    .order_by(RunEventRecord.run, RunEventRecord.id)
)


class Standing(NamedTuple):
    """Where a run stands, and since when."""

    id: str
    status: RunStatus
    attempt: int
    updated_at: datetime


def find(session: Session, prefix: str) -> Run:
    """Return the run with this id, or the only one whose id starts so. Raises :class:`UnknownRun`."""
    matches: Sequence[Run] = ()
    if isinstance(prefix, str) and RUN_ID.fullmatch(prefix):  # a caller's message may hold anything
        matches = session.scalars(_starting_with(prefix).order_by(Run.id).limit(_NAMED_AT_MOST)).all()
    if not matches:
        raise UnknownRun(f"No run has an id that starts with {prefix!r}: `terraslot runs` lists the latest.")
    if len(matches) > 1 and matches[0].id != prefix:
        named = ", ".join(run.id for run in matches)
        more = ", …" if len(matches) == _NAMED_AT_MOST else ""
        raise UnknownRun(f"{prefix!r} is the beginning of more than one run's id: {named}{more}. Write more of it.")
    return matches[0]


def these(session: Session, ids: Collection[str]) -> list[Run]:
    """Return the runs that have these ids, whole ones; in no order, without those that there are not."""
    return list(session.scalars(select(Run).where(Run.id.in_(ids))))


def recent(
    session: Session,
    *,
    workspace: str | None = None,
    pool: str | None = None,
    statuses: Collection[RunStatus] | None = None,
    kind: RunKind | None = None,
    actor: str | None = None,
    text: str | None = None,
    before: Run | None = None,
    limit: int,
) -> list[Run]:
    """Return the latest runs, the newest first; those older than ``before``, where that is given.

    None is for whatever there is. ``text`` is a part of a run's id, workspace, message or error, in whatever case.
    """
    wanted = select(Run).where(*_chosen(workspace=workspace, pool=pool, kind=kind, actor=actor, text=text))
    if statuses is not None:
        wanted = wanted.where(*in_status(statuses))
    if before is not None:
        wanted = wanted.where(tuple_(Run.created_at, Run.id) < (before.created_at, before.id))
    return _all(session, wanted.order_by(Run.created_at.desc(), Run.id.desc()).limit(limit))


def in_status(statuses: Collection[RunStatus]) -> Iterator[ColumnElement[bool] | TextClause]:
    """Yield the conditions of runs in one of these statuses; where none of them is over, an index has all others."""
    yield Run.status.in_(statuses)
    if not any(status.is_over for status in statuses):
        yield _UNFINISHED


def ended_between(session: Session, workspace: str, begin: datetime, end: datetime) -> list[str]:
    """Return state-changing runs of a workspace that had started and ended in this time: of its latest before it."""
    latest = select(Run.id, Run.finished_at).where(Run.workspace == workspace, Run.created_at <= end)
    latest = latest.where(text(STATE_CHANGING), Run.agent.is_not(None))
    of = latest.order_by(Run.created_at.desc()).limit(_LATEST).subquery()
    ended = select(of.c.id).where(of.c.finished_at > begin, of.c.finished_at <= end).order_by(of.c.finished_at.desc())
    return list(session.scalars(ended.limit(_NAMED_AT_MOST)))


def holding(session: Session, pool: str) -> list[Run]:
    """Return the runs of ``pool`` that hold a slot, the oldest first."""
    holders = select(Run).where(Run.pool == pool, text(ACTIVE))
    return _all(session, holders.order_by(Run.created_at, Run.id))


def active_in(session: Session, workspace: str) -> Run | None:
    """Return the state-changing run of a workspace that has started and is not over."""
    active = select(Run).where(Run.workspace == workspace, text(STATE_CHANGING), text(ACTIVE))
    return session.scalar(active)


def standings(session: Session, limit: int) -> list[Standing]:
    """Return where the latest of those runs stand that are not over."""
    return [Standing(*row) for row in session.execute(_STANDINGS, {"limit": limit})]


def events(session: Session, run_id: str) -> list[RunEventRecord]:
    """Return what happened to a run, in order."""
    happened = select(RunEventRecord).where(RunEventRecord.run == run_id).order_by(RunEventRecord.id)
    return list(session.scalars(happened))


def events_of(session: Session, ids: Collection[str]) -> dict[str, list[RunEventRecord]]:
    """Return what happened to each of these runs, in order."""
    happened: dict[str, list[RunEventRecord]] = {}
    for event in session.scalars(_EVENTS_OF, {"ids": sorted(ids)}):
        happened.setdefault(event.run, []).append(event)
    return happened


def approved_by(session: Session, run: Run) -> list[str]:
    """Return who has approved the plan of a run, of its present attempt."""
    details = (event.detail or {} for event in events(session, run.id) if event.event == RunNote.APPROVED)
    return [detail["actor"] for detail in details if detail.get("attempt") == run.attempt]


def _chosen(
    *,
    workspace: str | None = None,
    pool: str | None = None,
    kind: RunKind | None = None,
    actor: str | None = None,
    text: str | None = None,
) -> list[ColumnElement[bool]]:
    equal = ((Run.workspace, workspace), (Run.pool, pool), (Run.kind, kind), (Run.actor, actor))
    conditions = [column == value for column, value in equal if value is not None]
    if text is not None:
        searched = (Run.id, Run.workspace, Run.message, Run.error)
        conditions.append(or_(*(column.icontains(text, autoescape=True) for column in searched)))
    return conditions


def _starting_with(prefix: str) -> Select[Run]:
    # An index answers a range. LIKE would ignore case on SQLite, and '_', its wildcard, may be a part of an id.
    return select(Run).where(Run.id >= prefix, Run.id < prefix[:-1] + chr(ord(prefix[-1]) + 1))


def _all(session: Session, wanted: Select[Run]) -> list[Run]:
    return list(session.scalars(wanted, execution_options={"populate_existing": True}))
