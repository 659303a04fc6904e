"""How often overdue outcomes were sent again.

Revision ID: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "deliveries",
        sa.Column("run", sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql"), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("error", sa.Text()),
        sa.PrimaryKeyConstraint("run", name="pk_deliveries"),
        # The last release removes runs, and knows no table of deliveries.
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name="fk_deliveries_run", ondelete="CASCADE"),
    )
