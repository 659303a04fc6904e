"""Configuration is kept as it was given, and nothing that is needed can be deleted."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from workers.core.errors import NameTaken, StillInUse, UnknownPool, UnknownWorkspace
from workers.core.lifecycle import RunEvent, RunStatus
from workers.core.pools import PoolLimits
from workers.core.programs import PoolPrograms
from workers.protocol.programs import Program, Version
from workers.protocol.sources import DirectorySource, GitSource
from workers.specs.pools import PoolSpec
from workers.specs.workspaces import WorkspaceSpec
from workers.store import decisions, pools, runs, workspaces

POOL = PoolSpec(name="big", limits=PoolLimits(min_agents=1, max_agents=50), attempts=5)
WORKSPACE = WorkspaceSpec(
    name="web",
    source=GitSource(url="https://example.com/code.git", ref="main", subdir="web"),
    variables={"zones": ["a", "b"], "size": 3, "note": "ü"},
    environment={"AWS_REGION": "eu-central-1"},
    auto_apply=True,
    confirm_timeout=120,
)


@pytest.fixture
def session(ledger):
    with ledger.database.begin() as session:
        yield session


def test_a_pool_comes_back_as_it_was_given(session, now):
    pools.save(session, POOL, now)
    assert pools.get(session, "big") == POOL
    assert pools.names(session) == [POOL.name, "default"]
    pools.update(session, POOL.model_copy(update={"attempts": 1}), now)
    assert pools.get(session, "big").attempts == 1


def test_what_the_agents_of_a_pool_have_is_kept_and_what_is_no_record_of_it_is_none(session, now):
    assert pools.with_programs(session, "default")[1] == PoolPrograms()
    has = PoolPrograms((Program("tofu", Version.of("1.10.1")),), "digest")
    pools.change_programs(session, "default", lambda _: has, now)
    assert pools.with_programs(session, "default") == (pools.get(session, "default"), has)
    for nonsense in ('"words"', '{"programs": 5, "template": []}', '{"programs": [null, "packer/1.0"]}'):
        session.execute(text(f"UPDATE pools SET programs = '{nonsense}'"))
        assert pools.with_programs(session, "default")[1] == PoolPrograms()
    with pytest.raises(UnknownPool):
        pools.with_programs(session, "none")


def test_a_workspace_comes_back_as_it_was_given(session, now):
    workspaces.save(session, WORKSPACE, now)
    assert workspaces.get(session, "web") == WORKSPACE
    assert workspaces.names(session) == ["dns", "net", "web"]
    pools.save(session, POOL, now)
    workspaces.update(session, WORKSPACE.model_copy(update={"pool": "big"}), now)

    assert workspaces.get(session, "web").pool == "big"


def test_a_name_is_taken_once(session, now):
    with pytest.raises(NameTaken, match="'default'"):
        pools.save(session, PoolSpec(name="default", attempts=9), now)
    with pytest.raises(NameTaken, match="'net'"):
        workspaces.save(session, WORKSPACE.model_copy(update={"name": "net"}), now)
    assert pools.get(session, "default") == PoolSpec(name="default")
    assert workspaces.get(session, "net").source == DirectorySource(path="/code")


def test_what_is_not_there_is_unknown_by_name(session, now):
    for action in (pools.get, pools.status, pools.delete):
        with pytest.raises(UnknownPool, match="'nowhere'"):
            action(session, "nowhere")
    with pytest.raises(UnknownPool, match="'big'"):
        pools.update(session, POOL, now)
    with pytest.raises(UnknownPool, match="'big'"):
        pools.set_status(session, "big", "full", now)
    for action in (workspaces.get, workspaces.delete):
        with pytest.raises(UnknownWorkspace, match="'nowhere'"):
            action(session, "nowhere")
    with pytest.raises(UnknownWorkspace, match="'web'"):
        workspaces.update(session, WORKSPACE, now)


@pytest.mark.parametrize("write", [workspaces.save, workspaces.update])
def test_a_workspace_of_an_unknown_pool_is_refused(ledger, now, write):
    workspace = WORKSPACE.model_copy(update={"pool": "nowhere", "name": "net" if write == workspaces.update else "web"})
    with pytest.raises(UnknownPool, match="'nowhere'"), ledger.database.begin() as session:
        write(session, workspace, now)


def test_a_pool_says_what_keeps_it_from_what_it_wants(session, now):
    assert pools.status(session, "default") is None
    pools.set_status(session, "default", "already at the maximum of 3", now)
    assert pools.status(session, "default") == "already at the maximum of 3"
    pools.set_status(session, "default", None, now)
    assert pools.status(session, "default") is None


@pytest.mark.parametrize("status", [status for status in RunStatus if not status.is_over], ids=str)
def test_a_workspace_or_pool_is_not_deleted_while_a_run_of_it_is_not_over(ledger, now, status):
    """F29."""
    with ledger.database.begin() as session:
        pools.save(session, PoolSpec(name="old"), now)
    ledger.add("a", pool="old")
    at = RunStatus.PENDING
    for event in (RunEvent.DISPATCHED, RunEvent.PLANNED, RunEvent.CONFIRMED):
        if at is not status:
            at = ledger.record("a", event, at).status
    for delete, name in ((workspaces.delete, "net"), (pools.delete, "old")):
        with pytest.raises(StillInUse, match=f"'{name}'.*run a is not over"), ledger.database.begin() as session:
            delete(session, name)


def test_a_pool_is_not_deleted_while_a_workspace_names_it(session):
    """F29."""
    with pytest.raises(StillInUse, match=r"'default'.*workspace '(net|dns)'"):
        pools.delete(session, "default")


def test_what_is_not_needed_is_deleted_and_its_history_stays(ledger, now):
    ledger.add("a")
    ledger.record("a", RunEvent.CANCELLED, RunStatus.PENDING)
    with ledger.database.begin() as session:
        decisions.record(session, "default", now, current=0, desired=1, reason="cold start", facts={})
        workspaces.delete(session, "net")
        workspaces.delete(session, "dns")
        pools.delete(session, "default")
        assert (pools.names(session), workspaces.names(session)) == ([], [])
        assert runs.get(session, "a").workspace == "net"
        assert len(decisions.recent(session, "default", 10)) == 1
    assert ledger.events("a") == ["submitted", "cancelled"]
