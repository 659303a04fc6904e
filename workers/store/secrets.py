"""Encrypted rows: credentials of pools, sensitive variables of pools and workspaces. Nothing here can decrypt them."""

from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.orm import Session

from workers.store.database import insert_if_new
from workers.store.models import Base, EncryptedVariables, PoolCredential, Run


class Owner(StrEnum):
    """What has sensitive variables."""

    WORKSPACE = "workspace"
    POOL = "pool"


def issue(session: Session, pool: str, generation: int, encrypted: str, now: datetime) -> bool:
    """Enter a new generation of a pool's credential; False where another process has entered it first."""
    table = Base.metadata.tables["pool_credentials"]
    return insert_if_new(session, table, pool=pool, generation=generation, sealed=encrypted, created_at=now)


def credentials(session: Session, pool: str) -> list[PoolCredential]:
    """Return the generations of a pool's credential that are not retired, the oldest first."""
    wanted = sa.select(PoolCredential).where(PoolCredential.pool == pool).order_by(PoolCredential.generation)
    return list(session.scalars(wanted))


def disconnected(session: Session, pool: str, generation: int, now: datetime) -> None:
    """Store when the connections that used a generation were closed."""
    session.execute(sa.update(PoolCredential).where(*_one(pool, generation)).values(disconnected_at=now))


def retire(session: Session, pool: str, generation: int) -> None:
    """Delete a generation that no agent uses any more."""
    session.execute(sa.delete(PoolCredential).where(*_one(pool, generation)))


def put_variables(session: Session, kind: Owner, owner: str, encrypted: str | None, now: datetime) -> None:
    """Replace the encrypted variables of an owner; None deletes them."""
    session.execute(sa.delete(EncryptedVariables).where(*_owner(kind, owner)))
    if encrypted is not None:
        session.add(EncryptedVariables(owner_kind=kind, owner=owner, encrypted=encrypted, updated_at=now))


def variables(session: Session, kind: Owner, owner: str) -> str | None:
    """Return the encrypted variables of an owner; None where it has none."""
    return session.scalar(sa.select(EncryptedVariables.encrypted).where(*_owner(kind, owner)))


def purge(session: Session, kind: Owner, owner: str) -> None:
    """Delete the secrets of an owner in the transaction that deletes it: a later owner of that name gets nothing."""
    session.execute(sa.delete(EncryptedVariables).where(*_owner(kind, owner)))
    if kind is Owner.POOL:
        session.execute(sa.delete(PoolCredential).where(PoolCredential.pool == owner))


def everything(session: Session) -> list[PoolCredential | EncryptedVariables | Run]:
    """Return every row that holds something encrypted, for re-encryption; but states, which are large."""
    of_runs = session.scalars(sa.select(Run).where(Run.encrypted.is_not(None)))
    return [*session.scalars(sa.select(PoolCredential)), *session.scalars(sa.select(EncryptedVariables)), *of_runs]


def _one(pool: str, generation: int) -> tuple[sa.ColumnElement[bool], ...]:
    return PoolCredential.pool == pool, PoolCredential.generation == generation


def _owner(kind: Owner, owner: str) -> tuple[sa.ColumnElement[bool], ...]:
    return EncryptedVariables.owner_kind == kind, EncryptedVariables.owner == owner
