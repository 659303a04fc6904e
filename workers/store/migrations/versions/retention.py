"""Old scaling decisions and failures of pods are found by their time.

Revision ID: 0003
"""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_index("ix_scaling_decisions_at", "scaling_decisions", ["at"])
    op.create_index("ix_pod_failures_at", "pod_failures", ["at"])
