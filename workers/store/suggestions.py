"""Names that begin as a word does, for a person who is typing it: one statement, and few of them."""

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute, Session

from workers.core.lifecycle import RunStatus
from workers.protocol.kinds import RunKind
from workers.store.models import ApiToken, Pool, Run, Workspace
from workers.store.run_queries import in_status

# Nobody reads more, and a shell asks first.
AT_MOST = 50


def workspaces(session: Session, prefix: str) -> Sequence[str]:
    """Return workspaces, by name."""
    return _names(session, Workspace.name, prefix)


def pools(session: Session, prefix: str) -> Sequence[str]:
    """Return pools, by name."""
    return _names(session, Pool.name, prefix)


def tokens(session: Session, prefix: str) -> Sequence[str]:
    """Return tokens, by name."""
    return _names(session, ApiToken.name, prefix)


def runs(session: Session, prefix: str, statuses: Collection[RunStatus]) -> list[tuple[str, str, RunKind, RunStatus]]:
    """Return the ids of runs in one of these statuses, the newest first, each with its workspace, kind and status."""
    found = sa.select(Run.id, Run.workspace, Run.kind, Run.status).where(*in_status(statuses))
    found = found.where(Run.id.startswith(prefix, autoescape=True)).order_by(Run.created_at.desc(), Run.id.desc())
    return [(run, workspace, kind, status) for run, workspace, kind, status in session.execute(found.limit(AT_MOST))]


def _names(session: Session, column: InstrumentedAttribute[Any], prefix: str) -> Sequence[str]:
    matching = sa.select(column).where(column.startswith(prefix, autoescape=True))
    return session.scalars(matching.order_by(column).limit(AT_MOST)).all()
