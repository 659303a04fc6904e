"""What pending runs wait for: what a pool's last cycle says of agents to come, and why a run could not be started.

Revision ID: 0015
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.add_column("pools", sa.Column("starting_pods", sa.Integer()))
    op.add_column("pools", sa.Column("available_agents", sa.Integer()))
    op.add_column("pools", sa.Column("blocked", sa.Text()))
    op.add_column("pools", sa.Column("cycle_due", sa.DateTime(timezone=True)))
    op.add_column("runs", sa.Column("start_error", sa.Text()))
