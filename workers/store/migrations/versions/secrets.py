"""Credentials of pools, and sensitive variables, both sealed.

Revision ID: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "pool_credentials",
        sa.Column("pool", sa.String(63), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("disconnected_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("pool", "generation", name="pk_pool_credentials"),
    )
    op.create_table(
        "sealed_variables",
        sa.Column("owner_kind", sa.String(16), nullable=False),
        sa.Column("owner", sa.String(63), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("owner_kind", "owner", name="pk_sealed_variables"),
        sa.CheckConstraint("owner_kind IN ('workspace', 'pool')", name="owner_kind"),
    )
