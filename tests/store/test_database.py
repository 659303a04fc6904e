"""Transactions, and what is said when the database can't be used."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import InternalError

from workers.protocol.errors import InvalidRequest, Unavailable
from workers.protocol.kinds import RunKind
from workers.specs.pools import PoolSpec
from workers.store import deliveries, pools, runs
from workers.store.database import Database

# Each is waited for, up to five seconds: what is merely told to end may still answer.
CLOSE_ALL = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'terraslot'"


def save(database, name, now):
    with database.begin() as session:
        pools.save(session, PoolSpec(name=name), now)


def names(database):
    with database.read() as session:
        return pools.names(session)


def test_a_transaction_is_committed_when_its_block_ends_and_rolled_back_when_it_raises(database, now):
    save(database, "kept", now)

    def fail():
        with database.begin() as session:
            pools.save(session, PoolSpec(name="dropped"), now)
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert names(database) == ["kept"]


def test_what_was_read_can_be_used_after_the_transaction(ledger):
    ledger.add("a")
    assert ledger.get("a").workspace == "net"


def test_readers_do_not_wait_for_a_writer_and_see_what_was_committed(ledger, rival, now):
    with ledger.database.begin() as session:
        pools.save(session, PoolSpec(name="new"), now)
        assert names(rival.database) == ["default"]
    assert names(rival.database) == ["default", "new"]


def test_a_transaction_for_reading_refuses_to_write_and_the_next_one_may(database, now):
    with pytest.raises((Unavailable, InternalError), match=r"read-?only"), database.read() as session:
        pools.save(session, PoolSpec(name="new"), now)
    save(database, "new", now)
    assert names(database) == ["new"]


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_sqlite_writer_that_waits_too_long_is_told_so(ledger, url, open_database, now):
    hasty = open_database(f"{url}?timeout=0.01")
    with ledger.database.begin() as session:
        pools.names(session)  # writing or not, it has begun
        with pytest.raises(Unavailable, match=r"terraslot\.db.* locked .*try again"):
            save(hasty, "new", now)
    save(hasty, "new", now)


@pytest.mark.parametrize("backend", ["sqlite"])
def test_sqlite_writers_of_one_process_queue_up_for_as_long_as_they_would_wait_for_others(url, open_database, now):
    hasty = open_database(f"{url}?timeout=0.01")
    with hasty.begin(), pytest.raises(Unavailable, match=r"terraslot\.db.* locked .*try again"):
        save(hasty, "new", now)
    save(hasty, "new", now)
    assert names(hasty) == ["new"]


@pytest.mark.parametrize("backend", ["sqlite"])
def test_sqlite_is_set_up_for_several_processes(database):
    with database.begin() as session:
        pragmas = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        settings = [session.execute(text(f"PRAGMA {pragma}")).scalar_one() for pragma in pragmas]
    assert settings == ["wal", 1, 1, 10_000]


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_process_that_ends_leaves_all_that_it_has_written_in_sqlites_file(url, database, now):
    database.dispose()
    program = (
        "import gc, sys; from sqlalchemy import text; from workers.store.database import Database\n"
        "database = Database(sys.argv[1])\n"
        "with database.begin() as session: session.execute(text('CREATE TABLE written (id INTEGER)'))\n"
        "gc.freeze()"
    )
    subprocess.run([sys.executable, "-c", program, url], check=True)
    file = Path(make_url(url).database)
    assert [each.name for each in file.parent.glob(f"{file.name}*")] == [file.name]


LIMITS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")


def limits(database):
    with database.read() as session:
        return [session.execute(text(f"SHOW {limit}")).scalar_one() for limit in LIMITS]


@pytest.mark.parametrize("backend", ["postgresql"])
def test_postgresql_ends_what_takes_too_long_unless_the_url_says_otherwise(url, database, open_database, now):
    assert limits(database) == ["30s", "10s", "1min"]
    save(database, "new", now)
    assert limits(database) == ["30s", "10s", "1min"], "also after a transaction on that connection"
    own = open_database(f"{url}&options=-c%20statement_timeout%3D7s")
    assert limits(own) == ["7s", "10s", "1min"]


@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_statement_that_takes_too_long_is_told_as_that(url, open_database):
    hasty = open_database(f"{url}&options=-c%20statement_timeout%3D50ms")
    with pytest.raises(Unavailable, match=r"took too long .*statement timeout.*try again"), hasty.read() as session:
        session.execute(text("SELECT pg_sleep(30)"))
    assert names(hasty) == []


@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_postgresql_writer_that_waits_too_long_is_told_so(ledger, url, open_database, now):
    hasty = open_database(f"{url}&options=-c%20lock_timeout%3D50ms")
    with ledger.database.begin() as session:
        pools.set_status(session, "default", "held", now)
        with pytest.raises(Unavailable, match="locked by other writers for too long: try"), hasty.begin() as other:
            pools.set_status(other, "default", "waits", now)


@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_process_that_is_frozen_in_a_transaction_keeps_its_rows_for_a_while_only(ledger, url, open_database, now):
    frozen = open_database(f"{url}&options=-c%20idle_in_transaction_session_timeout%3D50ms")

    def freeze():
        with frozen.begin() as session:
            pools.set_status(session, "default", "frozen", now)
            with ledger.database.begin() as other:
                pools.set_status(other, "default", "goes on", now)

    with pytest.raises(Unavailable, match=r"ended what took too long .*idle-in-transaction timeout"):
        freeze()
    with ledger.database.read() as session:
        assert pools.status(session, "default") == "goes on"


@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_connection_that_the_server_closed_is_replaced_unnoticed(database, postgres, now):
    save(database, "one", now)
    postgres.execute(CLOSE_ALL)
    save(database, "two", now)
    assert names(database) == ["one", "two"]


@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_connection_on_which_something_else_was_heard_goes_on(database, url, open_database):
    def execute(database, statement):
        with database.begin() as session:
            session.execute(text(statement))
            return session.scalar(text("SELECT pg_backend_pid()"))

    before = execute(database, "LISTEN news")
    execute(open_database(url), "NOTIFY news")
    assert execute(database, "UNLISTEN news") == before


@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_transaction_sends_no_statement_of_its_own(database, monkeypatch):
    names(database)
    sent, execute = [], psycopg.Cursor.execute

    def counted(*arguments, **options):
        sent.append(arguments[1])
        return execute(*arguments, **options)

    monkeypatch.setattr(psycopg.Cursor, "execute", counted)
    names(database)
    assert len(sent) == 1


@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_connection_that_breaks_in_a_transaction_makes_the_database_unavailable(database, postgres, now):

    def break_off():
        with database.begin() as session:
            pools.save(session, PoolSpec(name="new"), now)
            postgres.execute(CLOSE_ALL)

    with pytest.raises(Unavailable):
        break_off()
    assert names(database) == []


def test_a_sqlite_file_that_nobody_has_made_yet_is_told_what_makes_it(tmp_path, open_database):
    with pytest.raises(Unavailable, match=r"no file that can be opened\. Start the system with `terraslot up`"):
        names(open_database(f"sqlite:///{tmp_path}/nowhere/terraslot.db"))
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_database_that_comes_back_is_used_again(database, postgres, now):
    save(database, "before", now)
    postgres.stop()
    try:
        with pytest.raises(Unavailable, match=r"can't be used: .*Check that it is running"):
            save(database, "meanwhile", now)
    finally:
        postgres.start()
    save(database, "after", now)
    assert names(database) == ["after", "before"]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://someone:s3cret@127.0.0.1:1/terraslot",
        "postgresql+psycopg://someone@127.0.0.1:1/terraslot?password=s3cret",
    ],
)
def test_an_unreachable_server_is_named_without_its_password(url, open_database):
    with pytest.raises(Unavailable, match=r"someone.*@127\.0\.0\.1:1/terraslot") as caught:
        names(open_database(url))
    assert "s3cret" not in str(caught.value)
    assert "TERRASLOT_DATABASE_URL" in str(caught.value)


@pytest.mark.parametrize("path", ["nowhere/terraslot.db", "text.db", "."])
def test_a_file_that_can_not_be_a_database_is_named(tmp_path, path, open_database):
    (tmp_path / "text.db").write_text("this is no database, however long one looks at it" * 100)
    with pytest.raises(Unavailable, match="can't be used") as caught:
        names(open_database(f"sqlite:///{tmp_path / path}"))
    assert str(tmp_path / path) in str(caught.value)


def test_a_database_without_tables_says_how_to_get_them(empty_url, open_database):
    with pytest.raises(Unavailable, match=r"terraslot up.*migration job"):
        names(open_database(empty_url))


@pytest.mark.parametrize("url", ["nonsense", "postgresql://host:port/name", "oracle9://host/name", ""])
def test_an_invalid_url_is_refused_by_the_name_of_its_variable(url):
    with pytest.raises(InvalidRequest, match="TERRASLOT_DATABASE_URL is invalid"):
        Database(url)


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "UTC", "America/St_Johns"])
def test_a_time_comes_back_as_the_same_moment_in_utc(url, backend, ledger, open_database, zone):
    """Whatever zone the writer thought in, and whatever zone the server's session is set to."""
    if backend == "postgresql":
        ledger.database = open_database(f"{url}&options=-c%20TimeZone%3D{zone}")
    moment = datetime(2030, 6, 1, 0, 30, 0, 123456, tzinfo=timezone(timedelta(hours=9)))
    ledger.now = moment - timedelta(seconds=1)
    ledger.add("a", RunKind.PLAN)
    read = ledger.get("a").created_at
    assert read == moment
    assert read.utcoffset() == timedelta(0)


def test_times_compare_by_moment_across_zones(ledger, now):
    ledger.add("a", RunKind.PLAN)
    ledger.dispatch("a")
    with ledger.database.begin() as session:
        late = ledger.now.astimezone(timezone(timedelta(hours=-10)))
        runs.record(session, "a", "plan_finished", expect="planning", now=late)
        later = late + timedelta(microseconds=1)
        assert deliveries.overdue(session, before=late, now=later, limit=10) == []
        assert len(deliveries.overdue(session, before=later, now=later, limit=10)) == 1


def test_a_time_without_a_zone_is_refused(ledger):
    ledger.now = ledger.now.replace(tzinfo=None)
    with pytest.raises(Exception, match="has no timezone"):
        ledger.add("a")


def test_a_new_file_that_somebody_else_writes_to_at_this_moment_is_waited_for(tmp_path, monkeypatch):
    path = tmp_path / "new.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr(time, "sleep", lambda _: other.execute("COMMIT"))

    database = Database(f"sqlite:///{path}")
    database.migrate()

    assert names(database) == []
    database.dispose()
    other.close()


def test_the_clock_of_a_server_is_read_and_sqlite_has_none(database, backend):
    found = database.clock()
    assert (found is None) is (backend == "sqlite")
    assert found is None or abs(found - time.time()) < 5
