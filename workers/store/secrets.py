"""What is kept sealed: credentials of pools, sensitive variables of pools and workspaces. Nothing here can open it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.orm import Session

from workers.store.inserts import insert_if_new
from workers.store.models import Base, PoolCredential, SealedVariables


class Owner(StrEnum):
    """What sensitive variables belong to."""

    WORKSPACE = "workspace"
    POOL = "pool"


def issue(session: Session, pool: str, generation: int, sealed: str, now: datetime) -> bool:
    """Enter a new generation of a pool's credential; False where somebody else has entered it first."""
    table = Base.metadata.tables["pool_credentials"]
    return insert_if_new(session, table, pool=pool, generation=generation, sealed=sealed, created_at=now)


def credentials(session: Session, pool: str) -> list[PoolCredential]:
    """Return the generations of a pool's credential that are not retired, the oldest first."""
    wanted = sa.select(PoolCredential).where(PoolCredential.pool == pool).order_by(PoolCredential.generation)
    return list(session.scalars(wanted))


def disconnected(session: Session, pool: str, generation: int, now: datetime) -> None:
    """Remember when what used a generation was disconnected."""
    session.execute(sa.update(PoolCredential).where(*_one(pool, generation)).values(disconnected_at=now))


def retire(session: Session, pool: str, generation: int) -> None:
    """Forget a generation that nobody uses any more."""
    session.execute(sa.delete(PoolCredential).where(*_one(pool, generation)))


def put_variables(session: Session, kind: Owner, owner: str, sealed: str | None, now: datetime) -> None:
    """Keep the sealed variables of an owner in place of those it had; None keeps none."""
    session.execute(sa.delete(SealedVariables).where(*_owner(kind, owner)))
    if sealed is not None:
        session.add(SealedVariables(owner_kind=kind, owner=owner, sealed=sealed, updated_at=now))


def variables(session: Session, kind: Owner, owner: str) -> str | None:
    """Return the sealed variables of an owner; None where it has none."""
    return session.scalar(sa.select(SealedVariables.sealed).where(*_owner(kind, owner)))


def forget(session: Session, kind: Owner, owner: str) -> None:
    """Delete what is sealed for an owner that is deleted, in the same transaction: a namesake inherits nothing."""
    session.execute(sa.delete(SealedVariables).where(*_owner(kind, owner)))
    if kind is Owner.POOL:
        session.execute(sa.delete(PoolCredential).where(PoolCredential.pool == owner))


def everything(session: Session) -> list[PoolCredential | SealedVariables]:
    """Return every row that holds something sealed, for sealing it anew."""
    return [*session.scalars(sa.select(PoolCredential)), *session.scalars(sa.select(SealedVariables))]


def _one(pool: str, generation: int) -> tuple[sa.ColumnElement[bool], ...]:
    return PoolCredential.pool == pool, PoolCredential.generation == generation


def _owner(kind: Owner, owner: str) -> tuple[sa.ColumnElement[bool], ...]:
    return SealedVariables.owner_kind == kind, SealedVariables.owner == owner
