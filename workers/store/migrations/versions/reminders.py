"""When people are reminded of a plan that waits for them.

Revision ID: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("runs", sa.Column("remind_at", sa.DateTime(timezone=True)))
