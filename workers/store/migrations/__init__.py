"""The schema's versions, applied by Alembic without a configuration file. Expand, then contract.

Two releases work on one database while an upgrade goes on, and after a rollback. So a version of the schema only
*expands* it: the previous release must be able to read and insert every row. A new column is nullable or has a server
default; a new CHECK admits what the previous release writes. What no release needs any more is removed one release
later (*contract*), when every release that used it is gone. A release that meets a schema newer than its own leaves it
as it is. 0.1 would refuse it: it is told of no version that it does not know, in the table that it reads.

A version is a module in ``versions`` written by hand, named by four digits that count up. Tests compare what all
versions together make with the models, and with what the last release inserts, on both databases.
"""

from __future__ import annotations

import threading
from pathlib import Path

import structlog
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, inspect, text

from workers.protocol.errors import Unavailable

log = structlog.get_logger(__name__)

VERSION_TABLE = "schema_version"
# PostgreSQL's advisory locks have numbers for names: an arbitrary one that nothing else locks.
_ADVISORY_LOCK = 7_265_727_261
# Where 0.1 keeps the version, and the newest one that it knows.
_TABLE_OF_0_1, _NEWEST_OF_0_1 = "alembic_version", "0003"
# Alembic keeps its state in module globals.
_one_at_a_time = threading.Lock()


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Apply the versions up to ``revision`` that are missing, in the transaction of ``connection``.

    A second process waits for the first: on SQLite for the write lock that the transaction holds already, on
    PostgreSQL for a lock that ends with the transaction. A schema that is newer than all known versions is left as it
    is. Raises :class:`Unavailable` where the tables are those of another program.
    """
    config = Config()
    # Interpolated by configparser, where a percent sign in a path would be syntax.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    with _one_at_a_time:
        if connection.dialect.name == "postgresql":
            # A change of a large table takes its time, and so may another process that makes it. One that waits for a
            # table's lock keeps everybody from the table, so that it is given up, and tried again by who started it.
            connection.execute(text("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK})
            connection.execute(text("SET LOCAL lock_timeout = '10s'"))
        _take_over(connection)
        found, newest = _revision(connection), ScriptDirectory.from_config(config).get_current_head()
        if found and newest and found.isdigit() and found > newest:
            log.info("schema is newer than this version, left as it is", found=found, newest_known=newest)
            return
        _upgrade(config, connection, revision)


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()


def _take_over(connection: Connection) -> None:
    """Begin with the version that 0.1 has left, or without one; let 0.1 find its newest after a rollback."""
    tables = inspect(connection).get_table_names()
    if VERSION_TABLE in tables:
        return
    for table in {VERSION_TABLE, _TABLE_OF_0_1}.difference(tables):
        connection.execute(text(f"CREATE TABLE {table} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
    connection.execute(text(f"INSERT INTO {VERSION_TABLE} SELECT version_num FROM {_TABLE_OF_0_1}"))  # noqa: S608
    connection.execute(text(f"DELETE FROM {_TABLE_OF_0_1}"))  # noqa: S608 - names of our own
    connection.execute(text(f"INSERT INTO {_TABLE_OF_0_1} VALUES ('{_NEWEST_OF_0_1}')"))  # noqa: S608


def _upgrade(config: Config, connection: Connection, revision: str) -> None:
    try:
        command.upgrade(config, revision)
    except CommandError as error:
        raise Unavailable(
            f"The database {connection.engine.url} has the schema of another program: give Terraslot a database of its "
            f"own, in TERRASLOT_DATABASE_URL. ({error})"
        ) from error
