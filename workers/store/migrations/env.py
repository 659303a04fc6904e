"""Run by Alembic for every command: applies versions on the connection, and in the transaction, it is given."""

from alembic import context

from workers.store.indexes import Base
from workers.store.migrations import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    # SQLite can do it since the transaction begins before the first statement, which its driver would not do.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
