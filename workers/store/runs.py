"""Runs: add them, and move them from status to status.

:func:`record` is the only way from one status to another. It asks the transition table, writes only over the status
(and token) that the caller saw, and enters the event in the same transaction; None means that another write came
first, and nothing was written. :mod:`workers.store.workspace_queue` decides which runs may start, and
:mod:`workers.store.run_queries` finds runs.
"""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Executable, bindparam, insert, or_, select, text, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from workers.core.errors import UnknownRun
from workers.core.lifecycle import EventDetail, RunEvent, RunNote, RunStatus, next_status
from workers.protocol.kinds import RunKind
from workers.protocol.plan_detail import PlanDetail
from workers.protocol.progress import Progress
from workers.store import plans, workspace_queue
from workers.store import progress as applied
from workers.store.database import insert_if_new
from workers.store.models import RUNNABLE, UNDELIVERED, Base, Run

_runs = Base.metadata.tables["runs"]
# Without the number that the row gets: nobody asks for it, and PostgreSQL would have to tell it.
_ENTER = insert(Base.metadata.tables["run_events"]).inline()
_QUEUES = "queues of the runs that this transaction has locked"
_NOTHING_MORE: Mapping[str, Any] = {}

# Built once: that costs several times what SQLite takes to answer.
_MARK_DELIVERED = (
    update(_runs)
    .where(_runs.c.id.in_(bindparam("ids", expanding=True)), text(UNDELIVERED))
    .values(delivered_at=bindparam("now"))
    .returning(_runs.c.id)
)
_LOCK = (
    select(_runs).where(_runs.c.id.in_(bindparam("ids", expanding=True))).order_by(_runs.c.id)
    .with_for_update(key_share=True)
)  # fmt: skip
_BY_ID = select(_runs).where(_runs.c.id == bindparam("id"))


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


def get(session: Session, run_id: str) -> Run:
    """Return a run by its whole id. Raises :class:`UnknownRun`."""
    run = _one(session, _BY_ID, {"id": run_id})
    if run is None:
        raise UnknownRun(f"No run has the id {run_id!r}: `terraslot runs` lists the latest.")
    return run


def lock(session: Session, run_ids: Collection[str]) -> dict[str, Run]:
    """Return those of these runs that there are, and lock them and their workspaces until the transaction ends.

    Whoever changes several runs in one transaction begins with this: all locks are taken in one order.
    """
    ids = {"ids": sorted(run_ids)}
    workspace_queue.lock_workspaces_of(session, ids["ids"])
    found = [Run.of(row) for row in session.execute(_LOCK, ids)]
    # What a run's workspace is, and whether the run queues there, never changes.
    queues = {run.id: run.workspace if run.kind is RunKind.PLAN_AND_APPLY else None for run in found}
    session.info.setdefault(_QUEUES, {}).update(queues)
    return {run.id: run for run in found}


def _lock_queue_of(session: Session, run_id: str) -> str | None:
    """Lock the queue that a run is in, unless :func:`lock` has; return its workspace, None for a plan."""
    known: dict[str, str | None] = session.info.get(_QUEUES, {})
    return known[run_id] if run_id in known else workspace_queue.lock_workspace_of(session, run_id)


def claim_delivery(session: Session, run_id: str, now: datetime, until: datetime) -> Run | None:
    """Claim the delivery of an outcome until then and return its run.

    None where it was delivered, is claimed by another, or the run is not over.
    """
    claim = update(_runs).where(_runs.c.id == run_id, text(UNDELIVERED), unclaimed(now)).returning(_runs)
    return _one(session, claim.values(delivery_claimed_until=until), {})


def mark_delivered(session: Session, run_ids: Collection[str], now: datetime) -> set[str]:
    """Store that the outcomes of these runs were delivered; return of which that was not stored before.

    Of a run that is not over nothing is stored.
    """
    return set(session.scalars(_MARK_DELIVERED, {"ids": sorted(run_ids), "now": now}))


def unclaimed(now: datetime) -> ColumnElement[bool]:
    """Return the condition that no process claims the delivery of a run's outcome at ``now``."""
    return or_(_runs.c.delivery_claimed_until.is_(None), _runs.c.delivery_claimed_until < now)


def _one(session: Session, statement: Executable, parameters: Mapping[str, Any]) -> Run | None:
    row = session.execute(statement, parameters).one_or_none()
    return None if row is None else Run.of(row)


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
    return _one(
        session,
        _guarded(tuple(values), tuple(expecting), token=token is not None, runnable=dispatch),
        {"of_run": run_id, "of_status": expect, "of_token": token}
        | {f"was_{name}": value for name, value in expecting.items()}
        | {f"new_{name}": value for name, value in values.items()},
    )


@cache
def _guarded(
    columns: tuple[str, ...], expected: tuple[str, ...], *, token: bool, runnable: bool
) -> ReturningUpdate[Any]:
    """Return the statement that sets these columns, built once."""
    guarded = update(_runs).where(_runs.c.id == bindparam("of_run"), _runs.c.status == bindparam("of_status"))
    if token:
        guarded = guarded.where(_runs.c.token == bindparam("of_token"))
    if runnable:
        guarded = guarded.where(text(RUNNABLE))
    for name in expected:
        guarded = guarded.where(_runs.c[name].is_not_distinct_from(bindparam(f"was_{name}", type_=_runs.c[name].type)))
    new = {name: bindparam(f"new_{name}", type_=_runs.c[name].type) for name in columns}
    return guarded.values(new).returning(_runs)
