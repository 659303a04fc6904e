"""Encrypted values are kept, replaced, and gone with what they belong to."""

from __future__ import annotations

from datetime import UTC, datetime

from workers.protocol.sources import DirectorySource
from workers.specs.pools import PoolSpec
from workers.specs.workspaces import WorkspaceSpec
from workers.store import pools, secrets, workspaces
from workers.store.database import Database
from workers.store.secrets import Owner

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def test_a_generation_is_entered_once(database: Database) -> None:
    for encrypted, new in (("first", True), ("second", False)):
        with database.begin() as session:
            assert secrets.issue(session, "net", 1, encrypted, NOW) is new
    with database.read() as session:
        (credential,) = secrets.credentials(session, "net")
    assert (credential.encrypted, credential.created_at) == ("first", NOW)


def test_generations_are_listed_by_age_and_retired_one_by_one(database: Database) -> None:
    with database.begin() as session:
        for generation in (2, 1, 3):
            secrets.issue(session, "net", generation, f"sealed{generation}", NOW)
        secrets.disconnected(session, "net", 2, NOW)
        secrets.retire(session, "net", 1)
        assert [(one.generation, one.disconnected_at) for one in secrets.credentials(session, "net")] == [
            (2, NOW),
            (3, None),
        ]
        assert len(secrets.everything(session)) == 2


def test_sensitive_variables_are_replaced_as_a_whole_and_can_be_taken_away(database: Database) -> None:
    with database.begin() as session:
        for encrypted in ("old", "new", None):
            secrets.put_variables(session, Owner.WORKSPACE, "net", encrypted, NOW)
            session.flush()
            assert secrets.variables(session, Owner.WORKSPACE, "net") == encrypted
        assert secrets.variables(session, Owner.POOL, "net") is None


def test_a_namesake_of_what_was_deleted_inherits_nothing(database: Database) -> None:
    pool = PoolSpec(name="net")
    workspace = WorkspaceSpec(name="net", pool="net", source=DirectorySource(path="/code"))
    with database.begin() as session:
        pools.save(session, pool, NOW)
        workspaces.save(session, workspace, NOW)
        secrets.issue(session, "net", 1, "sealed", NOW)
        for kind in Owner:
            secrets.put_variables(session, kind, "net", "sealed", NOW)
    with database.begin() as session:
        workspaces.delete(session, "net")
        pools.delete(session, "net")
    with database.read() as session:
        assert secrets.everything(session) == []
