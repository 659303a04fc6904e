"""The schema's versions, applied by Alembic without a configuration file.

A new version is a module in ``versions`` written by hand; tests compare what all versions together make with the
models, on both databases.
"""

from __future__ import annotations

import threading
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, text

from workers.protocol.errors import Unavailable

# Any number that nothing else locks: PostgreSQL's advisory locks have no names.
_ADVISORY_LOCK = 7_265_727_261
# Alembic keeps what it is doing in module globals.
_one_at_a_time = threading.Lock()


def upgrade(connection: Connection) -> None:
    """Apply, in the transaction of ``connection``, the versions that are missing.

    Whoever comes second waits for the first: on SQLite for the write lock that the transaction holds already, on
    PostgreSQL for a lock that ends with the transaction. Raises :class:`Unavailable` where a version that this
    program does not know has been applied already.
    """
    config = Config()
    # Interpolated by configparser, where a percent sign in a path would be syntax.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    with _one_at_a_time:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK})
        _upgrade(config, connection)


def _upgrade(config: Config, connection: Connection) -> None:
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise Unavailable(
            f"The database {connection.engine.url} was brought up to date by a newer Terraslot: run that one. ({error})"
        ) from error
