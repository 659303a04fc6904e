"""The delivery of an outcome is claimed before it is executed.

Revision ID: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("runs", sa.Column("delivery_claimed_until", sa.DateTime(timezone=True)))
