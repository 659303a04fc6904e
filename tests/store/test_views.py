"""What can be found: runs by id and prefix, the latest, those that need something; decisions and pod failures."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import event

from workers.core.errors import UnknownRun
from workers.core.lifecycle import RunEvent, RunStatus
from workers.protocol.kinds import RunKind
from workers.store import decisions, run_queries, suggestions

PLAN = RunKind.PLAN


@pytest.fixture
def find(ledger):
    def by(prefix):
        with ledger.database.read() as session:
            return run_queries.find(session, prefix).id

    return by


def test_a_run_is_found_by_its_id_or_a_prefix_that_only_it_has(ledger, find):
    for run in ("abc-1", "abc-2", "abd", "ab", "Abc", "z"):
        ledger.add(run, PLAN)
    assert find("abc-1") == "abc-1"
    assert find("abd") == "abd"
    assert find("A") == "Abc", "ids differ by case"
    assert find("ab") == "ab", "a whole id wins over those that it begins"
    assert find("z") == "z"


def test_a_prefix_of_several_runs_names_them(ledger, find):
    for run in ("abc-1", "abc-2"):
        ledger.add(run, PLAN)
    with pytest.raises(UnknownRun, match=r"'abc'.*abc-1, abc-2\. Write more"):
        find("abc")
    for number in range(3, 9):
        ledger.add(f"abc-{number}", PLAN)
    with pytest.raises(UnknownRun, match="abc-1, abc-2, abc-3, abc-4, abc-5, …"):
        find("abc")


@pytest.mark.parametrize("prefix", ["", "nobody", "%", "_", "a%", "abcd", "ü"])
def test_a_prefix_of_no_run_is_unknown(ledger, find, prefix):
    ledger.add("abc", PLAN)
    with pytest.raises(UnknownRun, match=f"starts with '{prefix}'"):
        find(prefix)


def test_names_that_begin_so_are_suggested_and_of_runs_the_newest_first(ledger):
    for run in ("ab-1", "ab_2", "abc", "b"):
        ledger.add(run, PLAN)
    with ledger.database.read() as session:
        suggested = suggestions.runs(session, "ab", set(RunStatus))
        assert [run for run, *_ in suggested] == ["abc", "ab_2", "ab-1"]
        assert suggested[0][1:] == ("net", PLAN, RunStatus.PENDING)
        assert [run for run, *_ in suggestions.runs(session, "ab_", set(RunStatus))] == ["ab_2"]
        assert suggestions.runs(session, "", {RunStatus.FAILED}) == []
        assert (suggestions.workspaces(session, "n"), suggestions.workspaces(session, "%")) == (["net"], [])
        assert (suggestions.pools(session, "def"), suggestions.tokens(session, "")) == (["default"], [])


@pytest.mark.parametrize("nonsense", [5, None, {"a": 1}, "a\x00", "\ud7ff", "\U0010ffff"])
def test_what_can_be_no_runs_id_is_unknown_too(ledger, find, nonsense):
    ledger.add("abc", PLAN)
    with pytest.raises(UnknownRun):
        find(nonsense)


def test_the_latest_runs_come_first_and_can_be_chosen(ledger):
    for number in range(6):
        ledger.add(f"r{number}", PLAN, workspace=("net", "dns")[number % 2])
    ledger.dispatch("r1")
    with ledger.database.read() as session:
        everything = {"workspace": None, "pool": None, "statuses": None, "limit": 50}

        def recent(**chosen):
            return [run.id for run in run_queries.recent(session, **(everything | chosen))]

        assert recent() == ["r5", "r4", "r3", "r2", "r1", "r0"]
        assert recent(limit=2) == ["r5", "r4"]
        assert recent(workspace="dns") == ["r5", "r3", "r1"]
        assert recent(statuses=[RunStatus.PLANNING]) == ["r1"]
        assert recent(pool="default", statuses=RunStatus, limit=1) == ["r5"]
        assert recent(pool="another") == recent(statuses=[]) == []


def test_runs_that_hold_a_slot_are_found(ledger):
    for run, workspace in (("waits", "net"), ("plans", "dns")):
        ledger.add(run, workspace=workspace)
        ledger.dispatch(run)
    ledger.add("pending")
    ledger.record("waits", RunEvent.PLANNED, RunStatus.PLANNING)
    with ledger.database.read() as session:
        assert [run.id for run in run_queries.holding(session, "default")] == ["waits", "plans"]
        assert run_queries.holding(session, "another") == []


def test_decisions_are_kept_with_their_facts_the_newest_first(database, now):
    with database.begin() as session:
        for desired in (1, 2, 3):
            decisions.record(session, "default", now, current=0, desired=desired, reason="why", facts={"idle": [1.5]})
        decisions.record(session, "another", now, current=0, desired=9, reason="why", facts={})
        latest = decisions.recent(session, "default", limit=2)
    assert [(decision.desired, decision.at) for decision in latest] == [(3, now), (2, now)]
    assert latest[0].facts == {"idle": [1.5]}


def test_failures_of_pods_are_found_by_pool_and_time(database, now):
    with database.begin() as session:
        for age in (700, 500, 100):
            decisions.record_pod_failure(session, "default", now - timedelta(seconds=age), f"pod-{age}", "it died")
        decisions.record_pod_failure(session, "another", now, "pod", "it died")
        failures = decisions.pod_failures(session, "default", now.timestamp() - 600)
    assert failures == [now.timestamp() - 500, now.timestamp() - 100]


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("chosen", "index"),
    [
        ({}, "ix_runs_recent"),
        ({"workspace": "net"}, "ix_runs_workspace"),
        ({"pool": "default"}, "ix_runs_pool"),
        ({"actor": "ada"}, "ix_runs_recent"),
        ({"statuses": [RunStatus.FAILED]}, "ix_runs_recent"),
        ({"statuses": [RunStatus.PENDING, RunStatus.PLANNING]}, "ix_runs_unfinished"),
    ],
)
def test_the_latest_runs_are_read_in_an_indexs_order_and_never_sorted(ledger, chosen, index):
    plan = query_plan(ledger, lambda session: run_queries.recent(session, limit=50, **chosen))
    assert index in plan
    assert "TEMP B-TREE FOR ORDER BY" not in plan, "only runs of one moment are sorted, by their ids"


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_what_goes_on_is_suggested_from_its_own_index(ledger):
    plan = query_plan(ledger, lambda session: suggestions.runs(session, "", {RunStatus.APPLY_PENDING}))
    assert "ix_runs_unfinished" in plan


def query_plan(ledger, query):
    with ledger.database.read() as session:
        sent: list[tuple[str, tuple[object, ...]]] = []
        event.listen(session.connection(), "before_cursor_execute", lambda *args: sent.append(args[2:4]))
        query(session)
        statement, parameters = sent[0]
        steps = session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        return " ".join(step.detail for step in steps)
