"""What people see of all pools is read in a few statements, and says of each what reading it alone says."""

from __future__ import annotations

import json
from datetime import timedelta

from sqlalchemy import event

from workers.core.lifecycle import RunEvent, RunStatus
from workers.protocol.kinds import RunKind
from workers.protocol.sources import DirectorySource
from workers.specs.pools import PoolSpec
from workers.specs.workspaces import WorkspaceSpec
from workers.store import decisions, overview, pools, workspace_queue, workspaces

MINUTE = timedelta(minutes=1)
PLAN, APPLY = RunKind.PLAN, RunKind.PLAN_AND_APPLY


def read(ledger, names=None, *, waiting=20, decisions=10):
    with ledger.database.read() as session:
        return overview.read(session, names, waiting=waiting, decisions=decisions, failed_since=ledger.now - MINUTE)


def populate(ledger, pool):
    """Enter a pool with a run that plans, three plans and two applies that wait, and three decisions."""
    with ledger.database.begin() as session:
        pools.save(session, PoolSpec(name=pool), ledger.now)
        pools.set_status(session, pool, f"status of {pool}", ledger.now)
        for name in ("net", "dns"):
            spec = WorkspaceSpec(name=f"{name}-{pool}", pool=pool, source=DirectorySource(path="/code"))
            workspaces.save(session, spec, ledger.now)
        for desired in (1, 2, 3):
            decisions.record(session, pool, ledger.now, current=0, desired=desired, reason="why", facts={})
        for age in (2 * MINUTE, MINUTE / 2):
            decisions.record_pod_failure(session, pool, ledger.now - age, "pod", "it died")
    for run, kind, workspace, priority in [
        ("plans", PLAN, "net", 9), ("low", PLAN, "net", 0), ("high", PLAN, "dns", 5), ("last", PLAN, "net", 0),
        ("one", APPLY, "net", 0), ("next", APPLY, "dns", 1), ("queued", APPLY, "dns", 0),
    ]:  # fmt: skip
        ledger.add(f"{run}-{pool}", kind, workspace=f"{workspace}-{pool}", pool=pool, priority=priority)
    ledger.dispatch(f"plans-{pool}", token="t")


def test_each_pool_is_shown_with_its_own_alone(ledger):
    for pool in ("blue", "red"):
        populate(ledger, pool)
    found = read(ledger)
    assert list(found) == ["blue", "default", "red"]
    for pool in ("blue", "red"):
        stored = found[pool]
        assert json.loads(stored.spec)["name"] == pool
        assert stored.status_message == f"status of {pool}"
        assert [run.id for run in stored.holding] == [f"plans-{pool}"]
        assert stored.pending == {PLAN: 3, APPLY: 2}
        with ledger.database.read() as session:
            in_order = [run.id for run in workspace_queue.runnable(session, pool, tuple(RunKind), 20)]
        assert [run.id for run in stored.waiting] == in_order != []
        assert [each.desired for each in stored.decisions] == [3, 2, 1]
        assert len(stored.failures) == 1
    empty = found["default"]
    assert (empty.status_message, empty.holding, empty.waiting, empty.decisions) == (None, [], [], [])
    assert empty.pending == {PLAN: 0, APPLY: 0}


def test_of_each_pool_the_first_that_wait_and_the_latest_decisions_are_read(ledger):
    for pool in ("blue", "red"):
        populate(ledger, pool)
    for stored in read(ledger, ("blue", "red", "nowhere"), waiting=2, decisions=2).values():
        assert [run.id.split("-")[0] for run in stored.waiting] == ["high", "next"]
        assert [each.desired for each in stored.decisions] == [3, 2]
    assert list(read(ledger, ("blue", "nowhere"))) == ["blue"]


def test_it_takes_as_many_statements_for_many_pools_as_for_one(ledger):
    def statements() -> int:
        sent: list[str] = []
        with ledger.database.read() as session:
            event.listen(session.connection(), "before_cursor_execute", lambda *args: sent.append(args[2]))
            overview.read(session, waiting=20, decisions=10, failed_since=ledger.now)
        return len(sent)

    of_one = statements()
    for number in range(8):
        populate(ledger, f"pool-{number}")
    assert len(read(ledger)) == 9
    assert statements() == of_one == 6


def test_a_run_that_is_over_holds_nothing_and_waits_for_nothing(ledger):
    populate(ledger, "blue")
    ledger.record("plans-blue", RunEvent.FAILED, RunStatus.PLANNING)
    assert read(ledger)["blue"].holding == []
