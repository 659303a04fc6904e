"""When the current phase of a run was ordered, and the trace that the run belongs to.

Revision ID: 0018
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.add_column("runs", sa.Column("ordered_at", sa.DateTime(timezone=True)))
    op.add_column("runs", sa.Column("trace", sa.String(55)))
