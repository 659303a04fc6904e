"""What a plan would do with each resource, in a table that lists of runs do not read.

Revision ID: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "run_plans",
        sa.Column("run", sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql"), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("run", name="pk_run_plans"),
        # The last release removes runs, and knows no table of plans.
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name="fk_run_plans_run", ondelete="CASCADE"),
    )
