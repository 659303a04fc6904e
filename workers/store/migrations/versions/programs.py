"""Which program a run requires and had, and which ones the agents of a pool have.

Revision ID: 0013
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.add_column("runs", sa.Column("terraform", sa.String(200)))
    op.add_column("runs", sa.Column("program", sa.String(100)))
    op.add_column("pools", sa.Column("programs", sa.JSON()))
