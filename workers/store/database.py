"""The connection to the database: transactions, and errors as sentences.

SQLite runs in WAL mode: readers never wait for writers, and one writer at a time writes; those of one process queue up
at a mutex. A writing transaction takes the write lock with its first statement (``BEGIN IMMEDIATE``), since one that
read first could not get it any more once another has written. PostgreSQL runs in READ COMMITTED, where guarded writes
re-read the row that they waited for.
"""

import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from select import POLLIN, poll
from typing import Any

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, func, make_url, select
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DBAPIError,
    DisconnectionError,
    InterfaceError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as NoFreeConnection
from sqlalchemy.orm import Session

from workers.protocol.errors import InvalidRequest, Unavailable

__all__ = ["Database", "Session"]

# Seconds that one writer waits for the others: far above the milliseconds that a transaction takes. A URL's query may
# override this, and the defaults below.
SQLITE_PATIENCE = 10.0
_POSTGRESQL_DEFAULTS = {
    "application_name": "terraslot",
    "connect_timeout": "5",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
}
# What PostgreSQL ends by itself, unless the role, the database or the URL says otherwise. A statement takes
# milliseconds, the longest, a purge, less than a second; a process that is frozen in a transaction keeps its rows for
# a minute.
_POSTGRESQL_LIMITS = {
    "statement_timeout": "30s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "60s",
}
_LIMIT = """
    SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS wanted (name, value)
    WHERE current_setting(name) = '0'
"""
_LOCK_NOT_AVAILABLE = "55P03"
_TOOK_TOO_LONG = ("57014", "25P03")  # query_canceled, idle_in_transaction_session_timeout
_MISSING_TABLE_STATES = ("42P01", "42703")  # PostgreSQL's undefined_table, undefined_column
_MISSING_TABLE_WORDS = ("no such table", "no such column", "has no column named")  # SQLite's


class Database:
    """The database at a SQLAlchemy URL. Nothing connects before it is used. For threads, not to be carried over a fork.

    Raises :class:`InvalidRequest` for an invalid URL. Every method raises :class:`Unavailable` where the database does
    not answer, is locked for too long or lacks its tables; nothing was written then, unless the connection broke
    during the commit itself.
    """

    def __init__(self, url: str) -> None:
        self._url = _parse(url)
        self._is_sqlite = self._url.get_backend_name() == "sqlite"
        self._engine = _sqlite_engine(self._url) if self._is_sqlite else _postgresql_engine(self._url)
        self._mutex = threading.Lock()
        self._reading = self._engine.execution_options(sqlite_begin="DEFERRED", postgresql_readonly=True)
        # The last connection that is closed moves SQLite's journal into its file: that waits for no garbage collection,
        # which a process that ends may do without.
        weakref.finalize(self, self._engine.dispose)

    def __str__(self) -> str:
        """Return the URL without its password."""
        return self._url.difference_update_query(["password"]).render_as_string(hide_password=True)

    def migrate(self) -> None:
        """Create the tables, or bring them up to this version. Safe from several processes at once, and again."""
        if self._is_sqlite and self._url.database:
            file = Path(self._url.database).absolute()
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o600)  # it holds outputs of runs
        # Alembic takes a fifth of a second to import, which only a migration has to spend.
        from workers.store import migrations  # noqa: PLC0415

        with self._explained(), self._engine.begin() as connection:
            migrations.upgrade(connection)

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """Open a transaction; commit when the block ends, roll back when it raises. What was read stays usable."""
        writing = Session(self._engine, expire_on_commit=False)
        with self._explained(), self._writer_mutex(), writing as session, session.begin():
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a transaction that sees one state of SQLite's and refuses to write; it waits for no writer."""
        with self._explained(), Session(self._reading, expire_on_commit=False) as session, session.begin():
            yield session

    def clock(self) -> float | None:
        """Return the server's time in seconds since the epoch; None for SQLite, which has no clock of its own."""
        if self._is_sqlite:
            return None
        with self.read() as session:
            now = session.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one()
        return float(now)

    def dispose(self) -> None:
        """Close all connections that are not in use."""
        self._engine.dispose()

    @contextmanager
    def _writer_mutex(self) -> Iterator[None]:
        """Let one thread of this process write to SQLite at a time.

        SQLite's own waiting polls at growing intervals: of six threads that write all the time, one was seen to wait
        for seconds.
        """
        if not self._is_sqlite:
            yield
            return
        if not self._mutex.acquire(timeout=float(str(self._url.query.get("timeout", SQLITE_PATIENCE)))):
            raise Unavailable(self._locked())
        try:
            yield
        finally:
            self._mutex.release()

    def _locked(self) -> str:
        return f"The database {self} was locked by other writers for too long: try again."

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, NoFreeConnection) as error:
            message = self._user_message(error)
            if message is None:
                raise
            raise Unavailable(message) from error

    def _user_message(self, error: Exception) -> str | None:
        """Return what a person is told; None for an error of the statement itself."""
        words = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        if _lacks_tables(error, words):
            return (
                f"The database {self} lacks tables of this version ({words}): "
                "start the system with `terraslot up`, or run the migration job."
            )
        state = _state(error)
        if state == _LOCK_NOT_AVAILABLE or words in ("database is locked", "database table is locked"):
            return self._locked()
        if state in _TOOK_TOO_LONG:
            return f"The database {self} ended what took too long ({words}). Nothing was changed: try again."
        if words == "unable to open database file":
            return (
                f"The database {self} can't be used: there is no file that can be opened. "
                "Start the system with `terraslot up`, which makes one, or check TERRASLOT_DATABASE_URL."
            )
        # SQLite raises exactly DatabaseError for a file that is no database, and a subclass for a wrong statement.
        if isinstance(error, OperationalError | InterfaceError | NoFreeConnection) or type(error) is DatabaseError:
            return (
                f"The database {self} can't be used: {words}. "
                "Check that it is running and that TERRASLOT_DATABASE_URL is right."
            )
        return None


def insert_if_new(session: Session, table: Table, **values: Any) -> bool:
    """Insert a row; return False, having changed nothing, where one with its primary key is there.

    Where another transaction is about to insert the same key, waits for it to end.
    """
    statement = _insert_if_new(session.get_bind().dialect.name, table)
    return session.execute(statement, values).first() is not None


def insert_of(dialect: str) -> Any:
    """Return the ``insert`` of a dialect, which knows conflicts. No other dialect is loaded."""
    return import_module(f"sqlalchemy.dialects.{dialect}").insert


@cache
def _insert_if_new(dialect: str, table: Table) -> Any:
    keys = list(table.primary_key.columns)
    return insert_of(dialect)(table).on_conflict_do_nothing(index_elements=keys).returning(*keys)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
        parsed.get_dialect()
    except (ArgumentError, ValueError) as error:
        raise InvalidRequest(
            "TERRASLOT_DATABASE_URL is invalid: write sqlite:///PATH or postgresql+psycopg://USER:PASSWORD@HOST/NAME."
        ) from error
    return parsed


def _postgresql_engine(url: URL) -> Engine:
    engine = create_engine(url.set(query=_POSTGRESQL_DEFAULTS | url.query), pool_timeout=10)
    event.listen(engine, "connect", _postgresql_connected)
    event.listen(engine, "checkout", _postgresql_taken)
    return engine


def _postgresql_connected(connection: Any, _record: object) -> None:
    # Not as options of the connection: poolers such as PgBouncer refuse those.
    connection.autocommit = True
    connection.execute(_LIMIT, [list(_POSTGRESQL_LIMITS), list(_POSTGRESQL_LIMITS.values())])
    connection.autocommit = False


def _postgresql_taken(connection: Any, _record: object, _proxy: object) -> None:
    """Notice before it is used that the server or a proxy has closed a connection, or that nobody answers keepalives.

    What an idle connection has to say is hardly ever anything but its end: only then is a round trip spent on it.
    """
    heard = poll()
    heard.register(connection.fileno(), POLLIN)
    if heard.poll(0):
        try:
            connection.execute("SELECT 1")
            connection.rollback()
        except connection.OperationalError as error:
            raise DisconnectionError from error


def _sqlite_engine(url: URL) -> Engine:
    engine = create_engine(url.set(query={"timeout": str(SQLITE_PATIENCE)} | url.query), pool_timeout=10)
    event.listen(engine, "connect", _sqlite_connected)
    event.listen(engine, "begin", _sqlite_begin)
    return engine


def _sqlite_connected(connection: Any, _record: object) -> None:
    # The driver begins transactions by itself, and late; _sqlite_begin does it instead.
    connection.isolation_level = None
    _write_ahead(connection)
    connection.execute("PRAGMA foreign_keys = ON")
    # In WAL mode a crash of the machine may cost the last commits and never the file; no commit waits for the disk.
    connection.execute("PRAGMA synchronous = NORMAL")


def _write_ahead(connection: Any) -> None:
    # While another process writes to a new file, SQLite refuses this at once, whatever its timeout.
    until = time.monotonic() + SQLITE_PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return


def _sqlite_begin(connection: Connection) -> None:
    mode = connection.get_execution_options().get("sqlite_begin", "IMMEDIATE")
    driver: Any = connection.connection.driver_connection
    driver.execute(f"PRAGMA query_only = {mode == 'DEFERRED'}")
    connection.exec_driver_sql(f"BEGIN {mode}")


def _lacks_tables(error: Exception, words: str) -> bool:
    return _state(error) in _MISSING_TABLE_STATES or any(missing in words for missing in _MISSING_TABLE_WORDS)


def _state(error: Exception) -> str | None:
    """Return PostgreSQL's code for an error."""
    state: str | None = getattr(getattr(error, "orig", None), "sqlstate", None)
    return state
