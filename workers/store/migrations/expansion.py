"""What the schema has gained since the last release, and no version of it records.

0.1.0 refuses a database whose version it does not know, so that nobody could go back to it from a higher one. What is
added is therefore looked for in the database itself. Once the last release leaves later versions as they are, additions
are versions again.
"""

import sqlalchemy as sa
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext

_RUN_ID = sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")


def expand(connection: sa.Connection) -> None:
    """Add what is missing. Only for a schema that has all versions."""
    there, add = sa.inspect(connection), Operations(MigrationContext.configure(connection))
    if "delivery_claimed_until" not in {column["name"] for column in there.get_columns("runs")}:
        add.add_column("runs", sa.Column("delivery_claimed_until", sa.DateTime(timezone=True)))
    if not there.has_table("deliveries"):
        add.create_table(
            "deliveries",
            sa.Column("run", _RUN_ID, nullable=False),
            sa.Column("attempts", sa.Integer(), nullable=False),
            sa.Column("next_at", sa.DateTime(timezone=True), nullable=False),
            sa.Column("error", sa.Text()),
            sa.PrimaryKeyConstraint("run", name="pk_deliveries"),
            # The last release removes runs, and knows no table of deliveries.
            sa.ForeignKeyConstraint(["run"], ["runs.id"], name="fk_deliveries_run", ondelete="CASCADE"),
        )
