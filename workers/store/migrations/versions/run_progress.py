"""What the apply of a run has done with each resource, in a table that lists of runs do not read.

Revision ID: 0019
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    op.create_table(
        "run_progress",
        sa.Column("run", sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql"), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("run", name="pk_run_progress"),
        # The last release removes runs, and knows no such table.
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name="fk_run_progress_run", ondelete="CASCADE"),
    )
