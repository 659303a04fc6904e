"""Which runs may be given a slot, and in which order: the queue of each workspace, and the line of those it lets pass.

Of the state-changing runs of a workspace at most one may start: the first of those that wait, by priority and then age,
while none is active, nobody has locked the workspace, and no run has left a state that it could not save. To derive
that in the dispatcher would cost more the more runs wait. So it is derived when it may change, which is when a run
arrives, ends or has to be planned anew, or what holds them changes, and stored as ``Run.runnable``. Each of these
writes locks the workspace's row first. On SQLite the transaction holds the write lock already.

Runnable runs of one pool, kind and priority start in rounds, and a workspace has one in each. A run takes the round
after the last one of its workspace; where none waits, the one after that which starts now. So nothing is added to the
round that starts now, and each comes to its end. A run that is planned anew starts with the present round.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Select, bindparam, case, func, or_, select, text, update
from sqlalchemy.orm import Session

from workers.core.waiting import MaintenanceLock
from workers.protocol.kinds import RunKind
from workers.store import pools, workspaces
from workers.store.models import ACTIVE, OWN_ORDER, RUNNABLE, START_ORDER, STATE_CHANGING, UNSETTLED, WAITING, Base, Run

# Statements are built once, from tables: building one costs several times what SQLite takes to answer it.
_runs = Base.metadata.tables["runs"]
_workspaces = Base.metadata.tables["workspaces"]
_states = Base.metadata.tables["rescued_states"]
_workspace, _pool = (Base.metadata.tables[table].c.name for table in ("workspaces", "pools"))
_LOCK_WORKSPACE = select(_workspace).where(_workspace == bindparam("workspace")).with_for_update(key_share=True)
_LOCK_POOL = select(_pool).where(_pool == bindparam("pool")).with_for_update(read=True, key_share=True)
_WORKSPACE_OF = select(_runs.c.workspace).where(_runs.c.id == bindparam("run"), text(STATE_CHANGING)).scalar_subquery()
_WORKSPACES_OF = select(_runs.c.workspace).where(
    _runs.c.id.in_(bindparam("runs", expanding=True)), text(STATE_CHANGING)
)
_LOCK_WORKSPACES_OF = (
    select(_workspace).where(_workspace.in_(_WORKSPACES_OF)).order_by(_workspace).with_for_update(key_share=True)
)
_LOCK_WORKSPACE_OF = select(_workspace).where(_workspace == _WORKSPACE_OF).with_for_update(key_share=True)

_OWN = select(_runs.c.id).where(_runs.c.workspace == bindparam("workspace"), text(STATE_CHANGING)).limit(1)
_LOCKED_AT = select(_workspaces.c.locked_at).where(_workspace == bindparam("workspace"))
_UNSAVED = select(_states.c.run).where(_states.c.workspace == bindparam("workspace"), text(UNSETTLED)).limit(1)
SITUATION = select(
    _LOCKED_AT.scalar_subquery(),
    _UNSAVED.scalar_subquery(),
    _OWN.where(text(ACTIVE)).scalar_subquery(),
    _OWN.where(text(WAITING)).order_by(*OWN_ORDER).scalar_subquery(),
    _OWN.where(text(RUNNABLE)).scalar_subquery(),
)
_LEAVE = update(_runs).where(_runs.c.id == bindparam("run")).values(runnable=False)

_line = _runs.alias("line")
_SAME = (_line.c.pool == _runs.c.pool, _line.c.kind == _runs.c.kind, _line.c.priority == _runs.c.priority)
_ROUNDS: Select[tuple[int]] = select(_line.c.round).where(*_SAME, text(RUNNABLE)).limit(1).correlate(_runs)
_PRESENT = _ROUNDS.order_by(_line.c.round).scalar_subquery()
_LAST_OWN = _ROUNDS.where(_line.c.workspace == _runs.c.workspace).order_by(_line.c.round.desc()).scalar_subquery()
_ROUND = case(
    (_runs.c.attempt > 0, func.coalesce(_PRESENT, 0)),
    else_=func.coalesce(_LAST_OWN + 1, _PRESENT + 1, 0),
)
JOIN = update(_runs).where(_runs.c.id == bindparam("run")).values(runnable=True, round=_ROUND)

NEXT = (
    select(_runs)
    .where(_runs.c.pool == bindparam("pool"), _runs.c.kind == bindparam("kind"), text(RUNNABLE))
    .order_by(*START_ORDER)
    .limit(bindparam("limit"))
)
# In the order of an index, so that none reads the table where nothing waits.
ANY = select(_runs.c.id).where(_runs.c.pool == bindparam("pool"), text(RUNNABLE)).order_by(_runs.c.kind).limit(1)
_required = _runs.c.terraform
_NEXT_WITHOUT = NEXT.where(or_(_required.is_(None), _required.not_in(bindparam("without", expanding=True))))

_LOCK = select(_workspaces.c.locked_by, _workspaces.c.locked_at, _workspaces.c.lock_message)


def lock_workspace(session: Session, workspace: str, pool: str) -> None:
    """Lock a workspace's queue, and keep the workspace and its pool from being deleted, until the transaction ends.

    Raises :class:`UnknownWorkspace` or :class:`UnknownPool` where it does not exist.
    """
    lock_queue(session, workspace)
    if session.scalar(_LOCK_POOL, {"pool": pool}) is None:
        raise pools.unknown(pool)


def lock_workspace_of(session: Session, run_id: str) -> str | None:
    """Lock the queue of the workspace of a state-changing run until the transaction ends; return its name.

    Returns None, having locked nothing, for a plan: a plan does not queue.
    """
    name: str | None = session.scalar(_LOCK_WORKSPACE_OF, {"run": run_id})
    return name


def lock_workspaces_of(session: Session, run_ids: Collection[str]) -> None:
    """Lock the queues of the workspaces of these runs, those that change state, in order of their names."""
    session.execute(_LOCK_WORKSPACES_OF, {"runs": run_ids})


def is_idle(session: Session, workspace: str) -> bool:
    """Whether a state-changing run that is added to a workspace may start. The workspace must be locked."""
    return not any(session.execute(SITUATION, {"workspace": workspace}).one())


def join(session: Session, run_id: str) -> None:
    """Make a pending run runnable, behind those whose turn comes before."""
    session.execute(JOIN, {"run": run_id})


def choose_next(session: Session, workspace: str) -> None:
    """Make the first waiting run of the workspace runnable, and no other. The workspace must be locked."""
    held, unsaved, active, first, present = session.execute(SITUATION, {"workspace": workspace}).one()
    chosen = None if held or unsaved or active else first
    if chosen == present:
        return
    # In two statements: the unique index that allows one runnable run is checked row by row.
    if present is not None:
        session.execute(_LEAVE, {"run": present})
    if chosen is not None:
        join(session, chosen)


def maintenance_lock(session: Session, workspace: str) -> MaintenanceLock | None:
    """Return the lock that holds the state-changing runs of a workspace. Raises :class:`UnknownWorkspace`."""
    row = session.execute(_LOCK.where(_workspace == workspace)).one_or_none()
    if row is None:
        raise workspaces.unknown(workspace)
    return MaintenanceLock(row.locked_by, row.locked_at, row.lock_message) if row.locked_at else None


def set_maintenance_lock(
    session: Session, workspace: str, lock: MaintenanceLock | None, now: datetime
) -> MaintenanceLock | None:
    """Hold the state-changing runs of a workspace that have not started, or let them go; return the lock before.

    A lock of somebody else stays. Raises :class:`UnknownWorkspace`.
    """
    lock_queue(session, workspace)
    before = maintenance_lock(session, workspace)
    if lock and before and lock.by != before.by:
        return before
    at = (before or lock).at if lock else None  # a new message does not make the lock younger
    values = {"locked_by": lock and lock.by, "locked_at": at, "lock_message": lock and lock.message}
    session.execute(update(_workspaces).where(_workspace == workspace).values(updated_at=now, **values))
    choose_next(session, workspace)
    return before


def runnable_in(session: Session, workspace: str) -> str | None:
    """Return the pool of the state-changing run of a workspace that may start; None where none may."""
    own = select(_runs.c.pool).where(_runs.c.workspace == workspace, text(STATE_CHANGING), text(RUNNABLE))
    pool: str | None = session.scalar(own)
    return pool


def unsaved(session: Session, workspace: str) -> str | None:
    """Return the run whose rescued state holds the state-changing runs of a workspace; None for none."""
    run: str | None = session.scalar(_UNSAVED, {"workspace": workspace})
    return run


def lock_queue(session: Session, workspace: str) -> None:
    """Lock a workspace's queue until the transaction ends. Raises :class:`UnknownWorkspace`."""
    if session.scalar(_LOCK_WORKSPACE, {"workspace": workspace}) is None:
        raise workspaces.unknown(workspace)


def runnable(
    session: Session, pool: str, kinds: Collection[RunKind], limit: int, without: Mapping[RunKind, Collection[str]] = {}
) -> list[Run]:
    """Return the runs of ``pool`` that need nothing but a slot, by priority, then round, then age.

    At most one of a workspace changes state. Reads up to ``limit`` rows of each kind, however many runs wait.
    ``without``: by kind, the requirements of runs that are left out.
    """
    found = [run for kind in kinds for run in _next(session, pool, kind, limit, without.get(kind, ()))]
    return sorted(found, key=lambda run: (-run.priority, run.round, run.created_at, run.id))[:limit]


def any_runnable(session: Session, pool: str) -> bool:
    """Whether a run of ``pool`` needs nothing but a slot."""
    return session.scalar(ANY, {"pool": pool}) is not None


def queued(session: Session, pool: str, limit: int) -> list[Run]:
    """Return the runs of ``pool`` that wait for another of their workspace, or its lock; up to so many of them."""
    # As an expression, so that SQLite looks at those that wait, and not at all that the pool ever had.
    of_pool = func.coalesce(_runs.c.pool, "") == pool
    held = select(_runs).where(text(STATE_CHANGING), text(WAITING), text(f"NOT {RUNNABLE}"), of_pool)
    return _all(session, held.order_by(*OWN_ORDER).limit(limit))


def pending_by_requirement(session: Session, pool: str) -> dict[tuple[RunKind, str | None], int]:
    """Return how many runs a free slot would let start, by kind and by what they require of their program."""
    grouped = select(Run.kind, Run.terraform, func.count()).where(Run.pool == pool, text(RUNNABLE))
    rows = session.execute(grouped.group_by(Run.kind, Run.terraform))
    return {(kind, required): count for kind, required, count in rows}


def _next(session: Session, pool: str, kind: RunKind, limit: int, without: Collection[str]) -> list[Run]:
    if not without:
        return _all(session, NEXT, pool=pool, kind=kind, limit=limit)
    return _all(session, _NEXT_WITHOUT, pool=pool, kind=kind, limit=limit, without=sorted(without))


def _all(session: Session, wanted: Select[Any], **parameters: Any) -> list[Run]:
    return [Run.of(row) for row in session.execute(wanted, parameters)]
