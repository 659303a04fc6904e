"""Whose turn it is in a workspace: which of its state-changing runs may be given a slot.

At most one is: the first of those that wait, by priority and then age, while none is active. Deriving that when the
dispatcher asks would cost the more the more runs wait behind one another; so it is derived when the answer may
change, which is when a run arrives, ends or has to be planned anew, and kept as ``Run.runnable``. All of these
writes take the workspace's row first. On SQLite the transaction holds the write lock already.
"""

from __future__ import annotations

from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from workers.core.errors import UnknownPool, UnknownWorkspace
from workers.store.models import ACTIVE, RUNNABLE, START_ORDER, STATE_CHANGING, WAITING, Pool, Run, Workspace


def hold(session: Session, workspace: str, pool: str) -> None:
    """Take the turn of a workspace, and keep it and its pool from being deleted, until the transaction ends.

    Raises :class:`UnknownWorkspace` or :class:`UnknownPool` where there is none to keep.
    """
    held = select(Workspace.name).where(Workspace.name == workspace).with_for_update(key_share=True)
    if session.scalar(held) is None:
        raise UnknownWorkspace(f"No workspace has the name {workspace!r}: `terraslot workspace list` shows all.")
    held = select(Pool.name).where(Pool.name == pool).with_for_update(read=True, key_share=True)
    if session.scalar(held) is None:
        raise UnknownPool(f"No pool has the name {pool!r}: `terraslot pool list` shows all.")


def hold_workspace_of(session: Session, run_id: str) -> str | None:
    """Take the turn of the workspace of a run that changes state, until the transaction ends; return its name.

    Returns None, having taken nothing, for a plan: it takes no turn.
    """
    workspace = select(Run.workspace).where(Run.id == run_id, text(STATE_CHANGING)).scalar_subquery()
    return session.scalar(select(Workspace.name).where(Workspace.name == workspace).with_for_update(key_share=True))


def choose_next(session: Session, workspace: str) -> None:
    """Make the right waiting run of the workspace runnable, and no other. The turn must be held."""
    own = (Run.workspace == workspace, text(STATE_CHANGING))
    active = session.scalar(select(Run.id).where(*own, text(ACTIVE)).limit(1))
    first = session.scalar(select(Run.id).where(*own, text(WAITING)).order_by(*START_ORDER).limit(1))
    chosen = None if active else first
    present = session.scalar(select(Run.id).where(*own, text(RUNNABLE)))
    if chosen == present:
        return
    # One after the other: the index that allows one of them looks at every single row.
    _set_runnable(session, present, runnable=False)
    _set_runnable(session, chosen, runnable=True)


def _set_runnable(session: Session, run_id: str | None, *, runnable: bool) -> None:
    if run_id is not None:
        change = update(Run).where(Run.id == run_id).values(runnable=runnable)
        session.execute(change, execution_options={"synchronize_session": False})
