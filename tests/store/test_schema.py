"""Migrations make exactly what the models say, on both databases, whoever runs them and however often."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import wait

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text

from tests.store.conftest import new_ledger
from workers.core.lifecycle import RunEvent, RunStatus
from workers.protocol.errors import Unavailable
from workers.protocol.kinds import FailureReason, RunKind
from workers.protocol.leases import CancelMode
from workers.store import migrations
from workers.store.indexes import Base

SQLITE_SCHEMA = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE '%_version%' ORDER BY type, name"
POSTGRESQL_SCHEMA = """
    SELECT 'column', table_name || '.' || column_name, concat_ws(
        ' ', ordinal_position, data_type, character_maximum_length, collation_name, is_nullable, column_default
    ) FROM information_schema.columns WHERE table_schema = 'public' AND table_name NOT LIKE '%_version'
    UNION ALL
    SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename NOT LIKE '%_version'
    UNION ALL
    SELECT 'constraint', conrelid::regclass || '.' || conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text NOT LIKE '%_version'
    ORDER BY 1, 2
"""


@pytest.fixture
def connect():
    """Open a plain connection, without what the store adds to it."""
    engines = []

    def connection(url):
        engines.append(create_engine(url))
        return engines[-1].begin()

    yield connection
    for engine in engines:
        engine.dispose()


def schema(connection):
    if connection.dialect.name == "postgresql":
        return [tuple(row) for row in connection.execute(text(POSTGRESQL_SCHEMA))]
    return [(kind, name, definitions(sql)) for kind, name, sql in connection.execute(text(SQLITE_SCHEMA))]


def definitions(sql):
    """The parts of a statement in any order: SQLite writes a column that is added later behind the constraints."""
    return sorted(part.strip() for part in (sql or "").rstrip().removesuffix(")").split(", "))


def test_alembic_finds_nothing_left_to_migrate(url, connect):
    with connect(url) as connection:
        options = {"include_object": lambda _, name, *__: not name.endswith("_version")}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata) == []


def test_migrations_and_models_make_the_same_schema_to_the_letter(url, empty_url, connect):
    """Also what Alembic does not compare: conditions of indexes, CHECKs, collations, the order of columns."""
    with connect(empty_url) as connection:
        Base.metadata.create_all(connection)
        by_models = schema(connection)
    with connect(url) as connection:
        assert schema(connection) == by_models
    assert len(by_models) > 20


@pytest.mark.parametrize(
    ("table", "constraint", "enum"),
    [
        ("runs", "ck_runs_kind", RunKind),
        ("runs", "ck_runs_status", RunStatus),
        ("runs", "ck_runs_reason", FailureReason),
        ("runs", "ck_runs_cancel_mode", CancelMode),
        ("run_events", "ck_run_events_status", RunStatus),
    ],
)
def test_the_database_allows_exactly_the_values_of_the_enum(url, connect, table, constraint, enum):
    with connect(url) as connection:
        checks = {check["name"]: check["sqltext"] for check in inspect(connection).get_check_constraints(table)}
    assert set(re.findall(r"'(\w+)'", checks[constraint])) == {member.value for member in enum}


def test_migrating_creates_the_directory_of_a_sqlite_file(tmp_path, open_database):
    path = tmp_path / "deep" / "100% down" / "terraslot.db"
    open_database(f"sqlite:///{path}").migrate()
    assert path.exists()


def test_migrating_again_changes_nothing(empty_url, open_database, connect):
    database = open_database(empty_url)
    database.migrate()
    with connect(empty_url) as connection:
        first = schema(connection)
    database.migrate()
    with connect(empty_url) as connection:
        assert schema(connection) == first


def test_three_processes_that_migrate_at_once_all_succeed(empty_url, connect):
    program = "import sys; from workers.store.database import Database; Database(sys.argv[1]).migrate()"
    processes = [subprocess.Popen([sys.executable, "-c", program, empty_url]) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    with connect(empty_url) as connection:
        assert connection.execute(text("SELECT count(*) FROM schema_version")).scalar_one() == 1


def test_who_migrates_second_waits_for_the_first(empty_url, open_database, meanwhile):
    with open_database(empty_url).begin() as session:
        migrations.upgrade(session.connection())
        second = meanwhile(open_database(empty_url).migrate)
        assert not second.done()
    second.result()


@pytest.mark.parametrize("backend", ["postgresql"])
def test_who_waits_for_another_migration_waits_as_long_as_it_takes(empty_url, open_database, meanwhile):
    hasty = open_database(f"{empty_url}&options=-c%20statement_timeout%3D200ms%20-c%20lock_timeout%3D200ms")
    with open_database(empty_url).begin() as session:
        migrations.upgrade(session.connection())
        second = meanwhile(hasty.migrate)
        assert wait([second], timeout=0.5).not_done
    second.result()


def test_a_migration_that_fails_leaves_nothing_behind(empty_url, open_database, connect):
    database = open_database(empty_url)

    def fail():
        with database.begin() as session:
            migrations.upgrade(session.connection())
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    with connect(empty_url) as connection:
        assert schema(connection) == []
    database.migrate()


LAST_RELEASE = "0003"  # the newest version of the schema that 0.1.0 knows
EXPANDED = (
    "ALTER TABLE runs ADD COLUMN note TEXT",
    "ALTER TABLE runs ADD COLUMN weight INTEGER NOT NULL DEFAULT 1",
    "CREATE TABLE approvals (run VARCHAR(128) NOT NULL)",
    "UPDATE schema_version SET version_num = '9999'",
)


def test_this_version_works_on_the_schema_of_a_later_one_and_leaves_it_as_it_is(empty_url, open_database, connect, now):
    database = open_database(empty_url)
    database.migrate()
    with connect(empty_url) as connection:
        for statement in EXPANDED:
            connection.execute(text(statement))
        later = schema(connection)

    database.migrate()

    with connect(empty_url) as connection:
        assert schema(connection) == later
    ledger = new_ledger(database, now)
    assert ledger.add("run")
    assert ledger.dispatch("run").status is RunStatus.PLANNING
    assert ledger.record("run", RunEvent.FAILED, RunStatus.PLANNING).status is RunStatus.FAILED
    assert ledger.events("run") == ["submitted", "dispatched", "failed"]


def test_a_schema_of_another_program_is_refused_and_left_as_it_is(empty_url, open_database, connect):
    with connect(empty_url) as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('ae1027a6acf')"))
    with pytest.raises(Unavailable, match=r"of another program.*TERRASLOT_DATABASE_URL"):
        open_database(empty_url).migrate()
    with connect(empty_url) as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == ["ae1027a6acf"]
        assert inspect(connection).get_table_names() == ["alembic_version"]


def test_the_last_release_finds_a_version_that_it_knows(url, connect):
    """It refuses any other, and so a rollback would end at its migration."""
    with connect(url) as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == [LAST_RELEASE]


def test_the_last_release_can_read_and_insert_every_row_of_this_schema(url, empty_url, connect):
    """Expand and contract: nothing that it uses is gone, and nothing that it does not know has to be given."""
    with connect(empty_url) as connection:
        migrations.upgrade(connection, LAST_RELEASE)
        known = columns(connection)
    with connect(url) as connection:
        present = columns(connection)
    assert known.keys() <= present.keys(), "what it reads is gone"
    given = {name for name, column in known.items() if not column["nullable"]}
    wanted = {name for name, column in present.items() if not column["nullable"] and column["default"] is None}
    assert {(table, name) for table, name in wanted - given if table in dict(known)} == set(), "it does not give these"


def columns(connection):
    """The columns of all tables, by table and name."""
    found = inspect(connection)
    return {(table, column["name"]): column for table in found.get_table_names() for column in found.get_columns(table)}
