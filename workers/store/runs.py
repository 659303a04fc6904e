"""Runs: add them, move them from status to status, find them.

:func:`record` is the only way from one status to another. It asks the transition table, writes only over the status
(and token) that the caller saw, and enters the event in the same transaction; None means that another write came
first, and nothing was written. :mod:`workers.store.workspace_queue` decides which runs may start.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, bindparam, func, insert, or_, select, text, tuple_, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from workers.core.errors import UnknownRun
from workers.core.lifecycle import OVER, EventDetail, RunEvent, RunNote, RunStatus, next_status
from workers.protocol.kinds import RunKind
from workers.protocol.names import RUN_ID
from workers.protocol.plan_detail import PlanDetail
from workers.protocol.progress import Progress
from workers.store import plans, workspace_queue
from workers.store import progress as applied
from workers.store.database import insert_if_new
from workers.store.models import (
    ACTIVE,
    OWN_ORDER,
    RUNNABLE,
    START_ORDER,
    STATE_CHANGING,
    UNDELIVERED,
    UNFINISHED,
    WAITING,
    Base,
    Run,
    RunEventRecord,
)

_runs = Base.metadata.tables["runs"]
_ENTER = insert(Base.metadata.tables["run_events"])
_QUEUES = "queues of the runs that this transaction has locked"
_NOTHING_MORE: Mapping[str, Any] = {}
_NAMED_AT_MOST = 5  # runs in the error about a prefix of several, and of those that another has waited for
_UNFINISHED = text(UNFINISHED)
_LATEST = 50  # runs of a workspace among which those are looked for

# Built once: that costs several times what SQLite takes to answer.
NEXT = (
    select(Run)
    .where(Run.pool == bindparam("pool"), Run.kind == bindparam("kind"), text(RUNNABLE))
    .order_by(*START_ORDER)
    .limit(bindparam("limit"))
)
_NEXT_WITHOUT = NEXT.where(or_(Run.terraform.is_(None), Run.terraform.not_in(bindparam("without", expanding=True))))
_MARK_DELIVERED = (
    update(_runs)
    .where(_runs.c.id.in_(bindparam("ids", expanding=True)), text(UNDELIVERED))
    .values(delivered_at=bindparam("now"))
    .returning(_runs.c.id)
)
_LOCK = select(Run).where(Run.id.in_(bindparam("ids", expanding=True))).order_by(Run.id).with_for_update(key_share=True)
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
_BY_ID = select(Run).where(Run.id == bindparam("id"))


class Standing(NamedTuple):
    """Where a run stands, and since when."""

    id: str
    status: RunStatus
    attempt: int
    updated_at: datetime


class Started(NamedTuple):
    """The columns of a run that a dispatch sets beside its status, and what is entered with the event."""

    columns: dict[str, Any]
    detail: EventDetail


def add(
    session: Session,
    run_id: str,
    *,
    workspace: str,
    pool: str,
    kind: RunKind,
    now: datetime,
    detail: EventDetail | None = None,
    started: Started | None = None,
    **columns: Any,
) -> tuple[Run, bool]:
    """Add a pending run; return it, and whether it is new. A run that has this id already is left as it is.

    ``started``: it is dispatched in the same step. Its workspace and its pool must be locked, and the workspace idle.
    Raises :class:`UnknownWorkspace` or :class:`UnknownPool`: neither can be deleted before this transaction ends.
    """
    values = {
        "id": run_id, "workspace": workspace, "pool": pool, "kind": kind, "status": RunStatus.PENDING,
        "runnable": False, "attempt": 0, "round": 0, "created_at": now, "updated_at": now, **columns,
    }  # fmt: skip
    if started is not None:
        return _add_started(session, values, started, detail)
    workspace_queue.lock_workspace(session, workspace, pool)
    new = insert_if_new(session, _runs, **values)
    if new and kind is RunKind.PLAN_AND_APPLY:
        workspace_queue.choose_next(session, workspace)
    elif new:
        workspace_queue.join(session, run_id)
    run = get(session, run_id)
    if new:
        remark(session, run, RunNote.SUBMITTED, now=now, detail=detail)
    return run, new


def _add_started(
    session: Session, values: dict[str, Any], started: Started, detail: EventDetail | None
) -> tuple[Run, bool]:
    before, values = values, values | started.columns
    values["status"] = next_status(before["status"], RunEvent.DISPATCHED)
    if not insert_if_new(session, _runs, **values):
        return get(session, values["id"]), False
    steps = ((RunNote.SUBMITTED, before, detail), (RunEvent.DISPATCHED, values, started.detail))
    entered = [
        {"run": values["id"], "at": values["created_at"], "event": event, "status": at["status"], "detail": about}
        for event, at, about in steps
    ]
    session.execute(_ENTER, entered)
    return Run(**values), True


def record(
    session: Session,
    run_id: str,
    event: RunEvent,
    *,
    expect: RunStatus,
    now: datetime,
    expect_token: str | None = None,
    expecting: Mapping[str, Any] = _NOTHING_MORE,
    detail: EventDetail | None = None,
    plan: PlanDetail | None = None,
    progress: Progress | None = None,
    also: Callable[[Session, Run], None] | None = None,
    **changes: Any,
) -> Run | None:
    """Move a run on by ``event``, and set the columns ``changes``, and ``finished_at`` where it is over; return it.

    ``plan``: what its plan would do with each resource, as it is now reported; ``progress``: what its apply has done.
    ``also``: what is written of the run beside it, before it is decided which run of its workspace is next.

    Returns None, having written nothing, where the run is not in the status ``expect``, has another token than
    ``expect_token`` if one is given, or in a column of ``expecting`` not what that says, or is to be dispatched and is
    not runnable. Raises :class:`IllegalTransition`
    where the transition table knows no ``event`` in that status.
    """
    status = next_status(expect, event)
    workspace = _lock_queue_of(session, run_id)
    values: dict[str, Any] = {"status": status, "updated_at": now, "runnable": False, **changes}
    if status.is_over:
        values |= {"finished_at": now, "encrypted": None}
    run = _update(
        session, run_id, expect, expect_token, values, expecting=expecting, dispatch=event is RunEvent.DISPATCHED
    )
    if run is None:
        return None
    session.execute(_ENTER, {"run": run_id, "at": now, "event": event, "status": status, "detail": detail})
    plans.keep(session, run, plan)
    applied.keep(session, run_id, progress)
    if also is not None:
        also(session, run)
    if status.holds_slot:
        return run  # while it goes on, no other of its workspace may start
    if workspace is not None:
        workspace_queue.choose_next(session, workspace)
    elif status is RunStatus.PENDING:
        workspace_queue.join(session, run_id)  # a plan does not queue
    return get(session, run_id) if status is RunStatus.PENDING else run


def note(
    session: Session,
    run_id: str,
    note: RunNote,
    *,
    expect: RunStatus,
    now: datetime,
    expect_token: str | None = None,
    expecting: Mapping[str, Any] = _NOTHING_MORE,
    detail: EventDetail | None = None,
    **changes: Any,
) -> Run | None:
    """Set the columns ``changes`` of a run that stays in its status, and enter ``note`` among its events.

    Guarded like :func:`record`, with the same None.
    """
    values = {"updated_at": now, **changes}
    run = _update(session, run_id, expect, expect_token, values, expecting=expecting, dispatch=False)
    if run is not None:
        session.execute(_ENTER, {"run": run_id, "at": now, "event": note, "status": expect, "detail": detail})
    return run


def change(
    session: Session,
    run_id: str,
    *,
    expect: RunStatus,
    now: datetime,
    expect_token: str | None = None,
    plan: PlanDetail | None = None,
    **changes: Any,
) -> Run | None:
    """Set the columns ``changes`` of a run that stays in its status, and its plan. Guarded like :func:`record`."""
    run = _update(session, run_id, expect, expect_token, {"updated_at": now, **changes}, dispatch=False)
    if run is not None:
        plans.keep(session, run, plan)
    return run


def remark(session: Session, run: Run, note: RunNote, *, now: datetime, detail: EventDetail | None = None) -> None:
    """Enter ``note`` among the events of a run that was read, over or not; the run itself stays as it is."""
    session.execute(_ENTER, {"run": run.id, "at": now, "event": note, "status": run.status, "detail": detail})


def approved_by(session: Session, run: Run) -> list[str]:
    """Return who has approved the plan of a run, of its present attempt."""
    details = (event.detail or {} for event in events(session, run.id) if event.event == RunNote.APPROVED)
    return [detail["actor"] for detail in details if detail.get("attempt") == run.attempt]


def get(session: Session, run_id: str) -> Run:
    """Return a run by its whole id. Raises :class:`UnknownRun`."""
    run = session.scalar(_BY_ID, {"id": run_id}, execution_options={"populate_existing": True})
    if run is None:
        raise UnknownRun(f"No run has the id {run_id!r}: `terraslot runs` lists the latest.")
    return run


def lock(session: Session, run_ids: Collection[str]) -> dict[str, Run]:
    """Return those of these runs that there are, and lock them and their workspaces until the transaction ends.

    Whoever changes several runs in one transaction begins with this: all locks are taken in one order.
    """
    ids = {"ids": sorted(run_ids)}
    workspace_queue.lock_workspaces_of(session, ids["ids"])
    found = list(session.scalars(_LOCK, ids, execution_options={"populate_existing": True}))
    # What a run's workspace is, and whether the run queues there, never changes.
    queues = {run.id: run.workspace if run.kind is RunKind.PLAN_AND_APPLY else None for run in found}
    session.info.setdefault(_QUEUES, {}).update(queues)
    return {run.id: run for run in found}


def _lock_queue_of(session: Session, run_id: str) -> str | None:
    """Lock the queue that a run is in, unless :func:`lock` has; return its workspace, None for a plan."""
    known: dict[str, str | None] = session.info.get(_QUEUES, {})
    return known[run_id] if run_id in known else workspace_queue.lock_workspace_of(session, run_id)


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
        wanted = wanted.where(Run.status.in_(statuses))
        if not any(status.is_over for status in statuses):
            wanted = wanted.where(_UNFINISHED)  # of which there is an index
    if before is not None:
        wanted = wanted.where(tuple_(Run.created_at, Run.id) < (before.created_at, before.id))
    return _all(session, wanted.order_by(Run.created_at.desc(), Run.id.desc()).limit(limit))


def counts(session: Session, latest: int, **chosen: Any) -> dict[RunStatus, int]:
    """Return how many runs have each status: all of those that are not over, of the others the ``latest`` ones.

    ``chosen``: as for :func:`recent`, beside the status.
    """
    conditions = _chosen(**chosen)
    unfinished = select(Run.status, func.count()).where(_UNFINISHED, *conditions).group_by(Run.status)
    newest = select(Run.status).where(*conditions).order_by(Run.created_at.desc(), Run.id.desc()).limit(latest)
    of = newest.subquery()
    over = select(of.c.status, func.count()).where(of.c.status.in_(OVER)).group_by(of.c.status)
    return {status: count for counted in (unfinished, over) for status, count in session.execute(counted)}


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


def ended_between(session: Session, workspace: str, begin: datetime, end: datetime) -> list[str]:
    """Return state-changing runs of a workspace that had started and ended in this time: of its latest before it."""
    latest = select(Run.id, Run.finished_at).where(Run.workspace == workspace, Run.created_at <= end)
    latest = latest.where(text(STATE_CHANGING), Run.agent.is_not(None))
    of = latest.order_by(Run.created_at.desc()).limit(_LATEST).subquery()
    ended = select(of.c.id).where(of.c.finished_at > begin, of.c.finished_at <= end).order_by(of.c.finished_at.desc())
    return list(session.scalars(ended.limit(_NAMED_AT_MOST)))


def runnable(
    session: Session, pool: str, kinds: Collection[RunKind], limit: int, without: Mapping[RunKind, Collection[str]] = {}
) -> list[Run]:
    """Return the runs of ``pool`` that need nothing but a slot, by priority, then round, then age.

    At most one of a workspace changes state. Reads up to ``limit`` rows of each kind, however many runs wait.
    ``without``: by kind, the requirements of runs that are left out.
    """
    found = [run for kind in kinds for run in _next(session, pool, kind, limit, without.get(kind, ()))]
    return sorted(found, key=lambda run: (-run.priority, run.round, run.created_at, run.id))[:limit]


def _next(session: Session, pool: str, kind: RunKind, limit: int, without: Collection[str]) -> list[Run]:
    if not without:
        return _all(session, NEXT, pool=pool, kind=kind, limit=limit)
    return _all(session, _NEXT_WITHOUT, pool=pool, kind=kind, limit=limit, without=sorted(without))


def queued(session: Session, pool: str, limit: int) -> list[Run]:
    """Return the runs of ``pool`` that wait for another of their workspace, or its lock; up to so many of them."""
    # As an expression, so that SQLite looks at those that wait, and not at all that the pool ever had.
    of_pool = func.coalesce(_runs.c.pool, "") == pool
    held = select(Run).where(text(STATE_CHANGING), text(WAITING), text(f"NOT {RUNNABLE}"), of_pool)
    return _all(session, held.order_by(*OWN_ORDER).limit(limit))


def pending_by_requirement(session: Session, pool: str) -> dict[tuple[RunKind, str | None], int]:
    """Return how many runs a free slot would let start, by kind and by what they require of their program."""
    grouped = select(Run.kind, Run.terraform, func.count()).where(Run.pool == pool, text(RUNNABLE))
    rows = session.execute(grouped.group_by(Run.kind, Run.terraform))
    return {(kind, required): count for kind, required, count in rows}


def holding(session: Session, pool: str) -> list[Run]:
    """Return the runs of ``pool`` that hold a slot, the oldest first."""
    holders = select(Run).where(Run.pool == pool, text(ACTIVE))
    return _all(session, holders.order_by(Run.created_at, Run.id))


def active_in(session: Session, workspace: str) -> Run | None:
    """Return the state-changing run of a workspace that has started and is not over."""
    active = select(Run).where(Run.workspace == workspace, text(STATE_CHANGING), text(ACTIVE))
    return session.scalar(active)


def claim_delivery(session: Session, run_id: str, now: datetime, until: datetime) -> Run | None:
    """Claim the delivery of an outcome until then and return its run.

    None where it was delivered, is claimed by another, or the run is not over.
    """
    claim = update(Run).where(Run.id == run_id, text(UNDELIVERED), unclaimed(now)).values(delivery_claimed_until=until)
    return session.scalar(claim.returning(Run), execution_options={"synchronize_session": False})


def mark_delivered(session: Session, run_ids: Collection[str], now: datetime) -> set[str]:
    """Store that the outcomes of these runs were delivered; return of which that was not stored before.

    Of a run that is not over nothing is stored.
    """
    return set(session.scalars(_MARK_DELIVERED, {"ids": sorted(run_ids), "now": now}))


def events(session: Session, run_id: str) -> list[RunEventRecord]:
    """Return what happened to a run, in order."""
    happened = select(RunEventRecord).where(RunEventRecord.run == run_id).order_by(RunEventRecord.id)
    return list(session.scalars(happened))


def standings(session: Session, limit: int) -> list[Standing]:
    """Return where the latest of those runs stand that are not over."""
    return [Standing(*row) for row in session.execute(_STANDINGS, {"limit": limit})]


def events_of(session: Session, ids: Collection[str]) -> dict[str, list[RunEventRecord]]:
    """Return what happened to each of these runs, in order."""
    happened: dict[str, list[RunEventRecord]] = {}
    for event in session.scalars(_EVENTS_OF, {"ids": sorted(ids)}):
        happened.setdefault(event.run, []).append(event)
    return happened


def unclaimed(now: datetime) -> ColumnElement[bool]:
    """Return the condition that no process claims the delivery of a run's outcome at ``now``."""
    return or_(Run.delivery_claimed_until.is_(None), Run.delivery_claimed_until < now)


def _all(session: Session, wanted: Select[Run], **parameters: Any) -> list[Run]:
    return list(session.scalars(wanted, parameters, execution_options={"populate_existing": True}))


def _starting_with(prefix: str) -> Select[Run]:
    # An index answers a range. LIKE would ignore case on SQLite, and '_', its wildcard, may be a part of an id.
    return select(Run).where(Run.id >= prefix, Run.id < prefix[:-1] + chr(ord(prefix[-1]) + 1))


def _update(
    session: Session,
    run_id: str,
    expect: RunStatus,
    token: str | None,
    values: dict[str, Any],
    *,
    dispatch: bool,
    expecting: Mapping[str, Any] = _NOTHING_MORE,
) -> Run | None:
    return session.scalar(
        _guarded(tuple(values), tuple(expecting), token=token is not None, runnable=dispatch),
        {"of_run": run_id, "of_status": expect, "of_token": token}
        | {f"was_{name}": value for name, value in expecting.items()}
        | {f"new_{name}": value for name, value in values.items()},
        execution_options={"synchronize_session": False, "populate_existing": True},
    )


@cache
def _guarded(
    columns: tuple[str, ...], expected: tuple[str, ...], *, token: bool, runnable: bool
) -> ReturningUpdate[Run]:
    """Return the statement that sets these columns, built once."""
    guarded = update(Run).where(Run.id == bindparam("of_run"), Run.status == bindparam("of_status"))
    if token:
        guarded = guarded.where(Run.token == bindparam("of_token"))
    if runnable:
        guarded = guarded.where(text(RUNNABLE))
    for name in expected:
        guarded = guarded.where(_runs.c[name].is_not_distinct_from(bindparam(f"was_{name}", type_=_runs.c[name].type)))
    return guarded.values({name: bindparam(f"new_{name}", type_=_runs.c[name].type) for name in columns}).returning(Run)
