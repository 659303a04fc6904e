"""Pools: their configuration, and their status message."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from workers.core.errors import NameTaken, StillInUse, UnknownPool
from workers.specs.pools import PoolSpec
from workers.store import secrets
from workers.store.database import insert_if_new
from workers.store.models import UNFINISHED, Base, Pool, Run, Workspace

# Built once: every dispatch reads it.
_SPEC = sa.select(Pool.spec).where(Pool.name == sa.bindparam("name"))


def save(session: Session, spec: PoolSpec, now: datetime) -> None:
    """Create a pool. Raises :class:`NameTaken`."""
    values = {"spec": spec.model_dump(mode="json", exclude_defaults=True), "created_at": now, "updated_at": now}
    if not insert_if_new(session, Base.metadata.tables["pools"], name=spec.name, **values):
        raise NameTaken(f"There is a pool {spec.name!r} already: choose another name, or change that one.")


def update(session: Session, spec: PoolSpec, now: datetime) -> None:
    """Replace the configuration of a pool. Raises :class:`UnknownPool`."""
    _change(session, spec.name, spec=spec.model_dump(mode="json", exclude_defaults=True), updated_at=now)


def set_status(session: Session, name: str, message: str | None, now: datetime) -> None:
    """Store what keeps the pool from its desired state; None where nothing does. Raises :class:`UnknownPool`."""
    _change(session, name, status_message=message, updated_at=now)


def status(session: Session, name: str) -> str | None:
    """Return what keeps the pool from its desired state. Raises :class:`UnknownPool`."""
    row = session.get(Pool, name, populate_existing=True)
    if row is None:
        raise unknown(name)
    return row.status_message


def get(session: Session, name: str) -> PoolSpec:
    """Return the configuration of a pool. Raises :class:`UnknownPool`."""
    spec = session.scalar(_SPEC, {"name": name})
    if spec is None:
        raise unknown(name)
    return PoolSpec.model_validate(spec)


def all(session: Session) -> list[PoolSpec]:  # noqa: A001 - reads as pools.all
    """Return the configurations of all pools, by name."""
    return [PoolSpec.model_validate(spec) for spec in session.scalars(sa.select(Pool.spec).order_by(Pool.name))]


def delete(session: Session, name: str) -> None:
    """Delete a pool; its runs stay on record.

    Raises :class:`UnknownPool`, and :class:`StillInUse` while a workspace names it or a run of it is not over.
    The lock on its row keeps workspaces and runs from being added to it before this transaction ends.
    """
    if session.scalar(sa.select(Pool.name).where(Pool.name == name).with_for_update()) is None:
        raise unknown(name)
    expect_no_workspace(session, name)
    expect_no_run(session, name)
    secrets.purge(session, secrets.Owner.POOL, name)
    session.execute(sa.delete(Pool).where(Pool.name == name))


def expect_no_workspace(session: Session, name: str) -> None:
    """Raise :class:`StillInUse` while a workspace names the pool."""
    workspace = session.scalar(sa.select(Workspace.name).where(Workspace.pool == name).limit(1))
    if workspace is not None:
        raise StillInUse(f"The pool {name!r} can't be deleted: the workspace {workspace!r} uses it. Move it first.")


def expect_no_run(session: Session, name: str) -> None:
    """Raise :class:`StillInUse` while a run of the pool is not over."""
    run = session.scalar(sa.select(Run.id).where(Run.pool == name, sa.text(UNFINISHED)).limit(1))
    if run is not None:
        raise StillInUse(f"The pool {name!r} can't be deleted: its run {run} is not over. Wait for it, or cancel it.")


def _change(session: Session, name: str, **values: Any) -> None:
    changed = session.scalar(sa.update(Pool).where(Pool.name == name).values(values).returning(Pool.name))
    if changed is None:
        raise unknown(name)


def unknown(name: str) -> UnknownPool:
    """Return the error for a pool that does not exist."""
    return UnknownPool(f"No pool has the name {name!r}: `terraslot pool list` shows all.")
