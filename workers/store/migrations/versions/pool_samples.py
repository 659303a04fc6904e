"""Samples of pools over time, and an index of the runs that are not over.

Revision ID: 0017
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.create_table(
        "pool_samples",
        sa.Column("pool", sa.String(63), nullable=False),
        sa.Column("seconds", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ready", sa.Integer(), nullable=False),
        sa.Column("starting", sa.Integer(), nullable=False),
        sa.Column("running", sa.Integer(), nullable=False),
        sa.Column("reserved", sa.Integer(), nullable=False),
        sa.Column("waiting_plans", sa.Integer(), nullable=False),
        sa.Column("waiting_applies", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("pool", "seconds", "at", name="pk_pool_samples"),
    )
    op.create_index("ix_pool_samples_seconds", "pool_samples", ["seconds", "at"])
    unfinished = sa.text("finished_at IS NULL")
    op.create_index(
        "ix_runs_unfinished", "runs", ["created_at"], sqlite_where=unfinished, postgresql_where=unfinished
    )
