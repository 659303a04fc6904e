"""States that could not be saved, and locks that runs have met.

Revision ID: 0014
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

_UNSETTLED = sa.text("settled_at IS NULL")


def upgrade() -> None:
    op.create_table(
        "rescued_states",
        _run(),
        sa.Column("workspace", sa.String(63), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.Text()),
        sa.Column("in_transit", sa.Boolean(), nullable=False),
        sa.Column("settled_at", sa.DateTime(timezone=True)),
        sa.Column("settled_as", sa.String(16)),
        sa.PrimaryKeyConstraint("run", name="pk_rescued_states"),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name="fk_rescued_states_run", ondelete="CASCADE"),
    )
    op.create_index(
        "ix_rescued_states_unsettled", "rescued_states", ["workspace"],
        sqlite_where=_UNSETTLED, postgresql_where=_UNSETTLED,
    )  # fmt: skip
    op.create_table(
        "state_locks",
        _run(),
        sa.Column("lock", sa.JSON(), nullable=False),
        sa.Column("met_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("holder", sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("run", name="pk_state_locks"),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name="fk_state_locks_run", ondelete="CASCADE"),
    )


def _run() -> sa.Column[str]:
    return sa.Column("run", sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql"), nullable=False)
