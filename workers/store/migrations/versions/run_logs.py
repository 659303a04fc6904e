"""The logs of runs, compressed.

Revision ID: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    run = sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")
    op.create_table(
        "run_logs",
        sa.Column("run", run, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("last", sa.String(64), nullable=False),
        sa.Column("lines", sa.Integer(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("run", "number", name=op.f("pk_run_logs")),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name=op.f("fk_run_logs_run"), ondelete="CASCADE"),
    )
