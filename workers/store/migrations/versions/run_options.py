"""What a caller asked of a run beside its workspace, and why.

Revision ID: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("runs", sa.Column("options", sa.JSON()))
    op.add_column("runs", sa.Column("message", sa.Text()))
    op.add_column("runs", sa.Column("encrypted", sa.Text()))
