"""A workspace's local state has an identity of its own: a name that is used again does not inherit it.

Revision ID: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("workspaces", sa.Column("state_directory", sa.String(128)))
    op.create_index("uq_workspaces_state_directory", "workspaces", ["state_directory"], unique=True)
