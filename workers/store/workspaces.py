"""Workspaces: their configuration."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from workers.core.errors import NameTaken, StillInUse, UnknownPool, UnknownWorkspace
from workers.specs.workspaces import WorkspaceSpec
from workers.store import secrets
from workers.store.database import insert_if_new
from workers.store.models import UNFINISHED, Base, Run, Workspace

# Built once: every submission and every start of a run reads it.
_SPEC = sa.select(Workspace.spec).where(Workspace.name == sa.bindparam("name"))


def save(session: Session, spec: WorkspaceSpec, now: datetime) -> None:
    """Create a workspace. Raises :class:`NameTaken`, and :class:`UnknownPool` where its pool does not exist."""
    try:
        new = insert_if_new(
            session, Base.metadata.tables["workspaces"], name=spec.name, created_at=now, **_values(spec, now)
        )
    except IntegrityError as error:
        raise _unknown_pool(spec) from error
    if not new:
        raise NameTaken(f"There is a workspace {spec.name!r} already: choose another name, or change that one.")


def update(session: Session, spec: WorkspaceSpec, now: datetime) -> None:
    """Replace the configuration of a workspace. Runs that were entered before stay in the pool that it named then.

    Raises :class:`UnknownWorkspace`, and :class:`UnknownPool` where its pool does not exist.
    """
    changed = sa.update(Workspace).where(Workspace.name == spec.name).values(_values(spec, now))
    try:
        name = session.scalar(changed.returning(Workspace.name))
    except IntegrityError as error:
        raise _unknown_pool(spec) from error
    if name is None:
        raise unknown(spec.name)


def get(session: Session, name: str) -> WorkspaceSpec:
    """Return the configuration of a workspace. Raises :class:`UnknownWorkspace`."""
    spec = session.scalar(_SPEC, {"name": name})
    if spec is None:
        raise unknown(name)
    return WorkspaceSpec.model_validate(spec)


def all(session: Session, pool: str | None = None) -> list[WorkspaceSpec]:  # noqa: A001 - reads as workspaces.all
    """Return the configurations of all workspaces, or those of one pool, by name."""
    wanted = sa.select(Workspace.spec).order_by(Workspace.name)
    if pool is not None:
        wanted = wanted.where(Workspace.pool == pool)
    return [WorkspaceSpec.model_validate(spec) for spec in session.scalars(wanted)]


def delete(session: Session, name: str) -> None:
    """Delete a workspace; its runs stay on record.

    Raises :class:`UnknownWorkspace`, and :class:`StillInUse` while a run of it is not over. The lock on its row keeps
    runs from being added to it before this transaction ends.
    """
    if session.scalar(sa.select(Workspace.name).where(Workspace.name == name).with_for_update()) is None:
        raise unknown(name)
    run = session.scalar(sa.select(Run.id).where(Run.workspace == name, sa.text(UNFINISHED)).limit(1))
    if run is not None:
        raise StillInUse(
            f"The workspace {name!r} can't be deleted: its run {run} is not over. Wait for it, or cancel it."
        )
    secrets.purge(session, secrets.Owner.WORKSPACE, name)
    session.execute(sa.delete(Workspace).where(Workspace.name == name))


def _values(spec: WorkspaceSpec, now: datetime) -> dict[str, Any]:
    return {"pool": spec.pool, "spec": spec.model_dump(mode="json", exclude_defaults=True), "updated_at": now}


def unknown(name: str) -> UnknownWorkspace:
    """Return the error for a workspace that does not exist."""
    return UnknownWorkspace(f"No workspace has the name {name!r}: `terraslot workspace list` shows all.")


def _unknown_pool(spec: WorkspaceSpec) -> UnknownPool:
    return UnknownPool(f"There is no pool {spec.pool!r}, which the workspace {spec.name!r} names: create it first.")
