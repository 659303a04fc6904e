"""The round in which a run starts, and the lock that holds the runs of a workspace.

Revision ID: 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

_RUNNABLE = sa.text("runnable")


def upgrade() -> None:
    op.add_column("workspaces", sa.Column("locked_by", sa.Text()))
    op.add_column("workspaces", sa.Column("locked_at", sa.DateTime(timezone=True)))
    op.add_column("workspaces", sa.Column("lock_message", sa.Text()))
    op.add_column("runs", sa.Column("round", sa.Integer(), nullable=False, server_default=sa.text("0")))
    _partial_index("ix_runs_start", ["pool", "kind", sa.text("priority DESC"), "round", "created_at", "id"])
    _partial_index("ix_runs_own_round", ["workspace", "pool", "kind", "priority", "round"])


def _partial_index(name: str, columns: list[str | sa.TextClause]) -> None:
    op.create_index(name, "runs", columns, sqlite_where=_RUNNABLE, postgresql_where=_RUNNABLE)
