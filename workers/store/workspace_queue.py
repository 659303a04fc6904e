"""The queue of a workspace: which of its state-changing runs may be given a slot.

At most one may: the first of those that wait, by priority and then age, while none is active. To derive that in the
dispatcher would cost more the more runs wait. So it is derived when it may change, which is when a run arrives, ends
or has to be planned anew, and stored as ``Run.runnable``. Each of these writes locks the workspace's row first. On
SQLite the transaction holds the write lock already.
"""

from sqlalchemy import bindparam, select, text, update
from sqlalchemy.orm import Session

from workers.store import pools, workspaces
from workers.store.models import ACTIVE, RUNNABLE, START_ORDER, STATE_CHANGING, WAITING, Base

# Statements are built once, from tables: building one costs several times what SQLite takes to answer it.
_runs = Base.metadata.tables["runs"]
_workspace, _pool = (Base.metadata.tables[table].c.name for table in ("workspaces", "pools"))
_LOCK_WORKSPACE = select(_workspace).where(_workspace == bindparam("workspace")).with_for_update(key_share=True)
_LOCK_POOL = select(_pool).where(_pool == bindparam("pool")).with_for_update(read=True, key_share=True)
_WORKSPACE_OF = select(_runs.c.workspace).where(_runs.c.id == bindparam("run"), text(STATE_CHANGING)).scalar_subquery()
_LOCK_WORKSPACE_OF = select(_workspace).where(_workspace == _WORKSPACE_OF).with_for_update(key_share=True)

_OWN = select(_runs.c.id).where(_runs.c.workspace == bindparam("workspace"), text(STATE_CHANGING)).limit(1)
SITUATION = select(
    _OWN.where(text(ACTIVE)).scalar_subquery(),
    _OWN.where(text(WAITING)).order_by(*START_ORDER).scalar_subquery(),
    _OWN.where(text(RUNNABLE)).scalar_subquery(),
)
_SET_RUNNABLE = update(_runs).where(_runs.c.id == bindparam("run")).values(runnable=bindparam("runnable"))


def lock_workspace(session: Session, workspace: str, pool: str) -> None:
    """Lock a workspace's queue, and keep the workspace and its pool from being deleted, until the transaction ends.

    Raises :class:`UnknownWorkspace` or :class:`UnknownPool` where it does not exist.
    """
    if session.scalar(_LOCK_WORKSPACE, {"workspace": workspace}) is None:
        raise workspaces.unknown(workspace)
    if session.scalar(_LOCK_POOL, {"pool": pool}) is None:
        raise pools.unknown(pool)


def lock_workspace_of(session: Session, run_id: str) -> str | None:
    """Lock the queue of the workspace of a state-changing run until the transaction ends; return its name.

    Returns None, having locked nothing, for a plan: a plan does not queue.
    """
    name: str | None = session.scalar(_LOCK_WORKSPACE_OF, {"run": run_id})
    return name


def choose_next(session: Session, workspace: str) -> None:
    """Make the first waiting run of the workspace runnable, and no other. The workspace must be locked."""
    active, first, present = session.execute(SITUATION, {"workspace": workspace}).one()
    chosen = None if active else first
    if chosen == present:
        return
    # In two statements: the unique index that allows one runnable run is checked row by row.
    if present is not None:
        session.execute(_SET_RUNNABLE, {"run": present, "runnable": False})
    if chosen is not None:
        session.execute(_SET_RUNNABLE, {"run": chosen, "runnable": True})
