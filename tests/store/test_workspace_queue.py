"""Which runs may start: plans always, and of each workspace one state-changing run, the first of those that wait."""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, event, insert, select, text
from sqlalchemy.exc import IntegrityError

from workers.core.errors import UnknownWorkspace
from workers.core.lifecycle import TRANSITIONS, RunEvent, RunStatus
from workers.core.waiting import MaintenanceLock
from workers.protocol.kinds import RunKind
from workers.protocol.sources import DirectorySource
from workers.specs.workspaces import WorkspaceSpec
from workers.store import places, workspace_queue, workspaces
from workers.store.models import Base, Run, RunEventRecord, Workspace

S, E = RunStatus, RunEvent
PLAN, APPLY = RunKind.PLAN, RunKind.PLAN_AND_APPLY


def test_runs_start_by_priority_then_round_then_age(ledger):
    for run, priority in (("a", 0), ("b", 5), ("c", 5), ("d", -1)):
        ledger.add(run, PLAN, priority=priority)
    ledger.add("e", APPLY, priority=5)
    assert ledger.runnable() == ["b", "e", "c", "a", "d"]
    assert ledger.runnable(limit=2) == ["b", "e"]
    assert ledger.runnable(APPLY) == ["e"]
    assert ledger.runnable(PLAN) == ["b", "c", "a", "d"]


def test_runs_of_the_same_moment_start_by_id(ledger):
    for run in ("b", "a", "B"):
        ledger.add(run, PLAN)
    with ledger.database.begin() as session:
        session.execute(text("UPDATE runs SET round = 0, created_at = (SELECT min(created_at) FROM runs)"))
    assert ledger.runnable() == ["B", "a", "b"]


def test_a_pool_sees_only_its_own_runs(ledger, now):
    ledger.add("a", PLAN)
    assert ledger.runnable(pool="another") == []


def test_of_one_workspace_only_the_first_state_changing_run_may_start(ledger):
    ledger.add("a")
    ledger.add("b")
    ledger.add("c", workspace="dns")
    ledger.add("d", PLAN)
    assert ledger.runnable() == ["a", "d", "c"]


@pytest.mark.parametrize("way", [[], [E.PLANNED], [E.PLANNED, E.CONFIRMED]], ids="-".join)
def test_the_next_run_of_a_workspace_waits_until_the_active_one_is_over(ledger, way):
    ledger.add("a")
    ledger.add("b")
    ledger.dispatch("a")
    status = S.PLANNING
    for step in way:
        status = ledger.record("a", step, status).status
        assert ledger.runnable() == []
    assert ledger.dispatch("b") is None
    ledger.record("a", E.FAILED, status)
    assert ledger.runnable() == ["b"]


def test_plans_run_beside_a_state_changing_run_of_their_workspace(ledger):
    for run, kind in (("a", APPLY), ("b", PLAN), ("c", PLAN)):
        ledger.add(run, kind)
        assert ledger.dispatch(run).status is S.PLANNING


def test_a_more_urgent_run_overtakes_one_that_waits_but_not_one_that_is_active(ledger):
    ledger.add("a")
    ledger.add("b", priority=1)
    assert ledger.runnable() == ["b"]
    assert ledger.dispatch("a") is None, "it was first when the dispatcher looked, and is not any more"
    ledger.dispatch("b")
    ledger.add("c", priority=9)
    assert ledger.runnable() == []
    ledger.record("b", E.CANCELLED, S.PLANNING)
    assert ledger.runnable() == ["c"]


def test_a_run_that_is_planned_anew_takes_its_old_place(ledger):
    ledger.add("a")
    ledger.add("b")
    ledger.add("p", PLAN)
    for run in ("a", "p"):
        ledger.dispatch(run)
        assert ledger.record(run, E.AGENT_LOST, S.PLANNING).runnable is True
    assert ledger.runnable() == ["a", "p"]


def test_cancelling_the_first_of_those_that_wait_makes_the_next_one_runnable(ledger):
    for run in ("a", "b", "c"):
        ledger.add(run)
    ledger.record("b", E.CANCELLED, S.PENDING)
    assert ledger.runnable() == ["a"]
    ledger.record("a", E.CANCELLED, S.PENDING)
    assert ledger.runnable() == ["c"]


def test_only_runs_that_a_free_slot_would_let_start_are_counted_as_pending(ledger):
    """F6: runs that wait for their workspace drive no scale-up."""
    for run in ("a", "b", "c"):
        ledger.add(run)
    ledger.add("d", workspace="dns")
    for run in ("p", "q", "r"):
        ledger.add(run, PLAN)
    with ledger.database.read() as session:
        assert workspace_queue.pending_by_requirement(session, "default") == {(PLAN, None): 3, (APPLY, None): 2}
        assert workspace_queue.pending_by_requirement(session, "another") == {}


def test_runs_are_counted_and_left_out_by_what_they_require(ledger):
    for run, terraform in (("a", None), ("b", "terraform ~> 1.9"), ("c", "tofu"), ("d", "tofu")):
        ledger.add(run, PLAN, terraform=terraform)
    with ledger.database.read() as session:
        assert workspace_queue.pending_by_requirement(session, "default") == {
            (PLAN, None): 1, (PLAN, "terraform ~> 1.9"): 1, (PLAN, "tofu"): 2,
        }  # fmt: skip
        for without, left in (
            ({"tofu"}, ["a", "b"]),
            ({"tofu", "terraform ~> 1.9"}, ["a"]),
            ((), ["a", "b", "c", "d"]),
        ):
            found = workspace_queue.runnable(session, "default", [PLAN], 10, {PLAN: without})
            assert sorted(run.id for run in found) == left


@pytest.mark.parametrize("active", [S.PLANNING, S.APPLY_PENDING, S.APPLYING], ids=str)
def test_the_database_itself_refuses_a_second_active_state_changing_run(ledger, active):
    ledger.add("a")
    ledger.add("b")
    ledger.dispatch("a")
    with pytest.raises(IntegrityError), ledger.database.begin() as session:
        session.execute(text("UPDATE runs SET status = :status WHERE id = 'b'"), {"status": active.value})


def test_the_database_itself_refuses_a_second_runnable_run_and_one_that_is_not_pending(ledger):
    ledger.add("a")
    ledger.add("b")
    with pytest.raises(IntegrityError), ledger.database.begin() as session:
        session.execute(text("UPDATE runs SET runnable = true WHERE id = 'b'"))
    with pytest.raises(IntegrityError), ledger.database.begin() as session:
        session.execute(text("UPDATE runs SET status = 'failed' WHERE id = 'a'"))


def expected_runnable(known, locked):
    """The rule in the plainest words. ``known`` is in the order of age."""
    waiting = sorted((run for run in known if run["status"] is S.PENDING), key=lambda run: -run["priority"])
    busy = {run["workspace"] for run in known if run["kind"] is APPLY and run["status"].holds_slot}
    first_of = {}
    for run in waiting:
        if run["kind"] is APPLY and run["workspace"] not in busy | locked:
            first_of.setdefault(run["workspace"], run["id"])
    return [run for run in waiting if run["kind"] is PLAN or first_of.get(run["workspace"]) == run["id"]]


def put_in_line(line, may_start):
    """Let the runs that may start stand in line, those that have just joined behind the others of their group."""
    line = [run for run in line if run in may_start]
    for run in may_start:
        if run in line:
            continue
        group = [other for other in line if (other["kind"], other["priority"]) == (run["kind"], run["priority"])]
        present = min((other["round"] for other in group), default=-1)
        own = [other["round"] for other in group if other["workspace"] == run["workspace"]]
        run["round"] = max(present, 0) if run["attempt"] else max(own, default=present) + 1
        line.append(run)
    return line


ADDING = st.fixed_dictionaries(
    {
        "kind": st.sampled_from([PLAN, APPLY, APPLY]),
        "workspace": st.sampled_from(["net", "dns"]),
        "priority": st.integers(0, 2),
        "terraform": st.sampled_from([None, "terraform ~> 1.9", "tofu"]),
    }
)
MOVING = st.tuples(st.integers(0, 30), st.sampled_from(RunEvent))
LOCKING = st.sampled_from(["net", "dns"])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.one_of(ADDING, MOVING, MOVING, LOCKING), max_size=30))
def test_whatever_happens_the_runnable_runs_are_those_of_the_plain_rule(ledger, steps):
    empty(ledger)
    known, locked, line = [], set(), []
    for step in steps:
        if isinstance(step, str):
            locked ^= {step}
            set_lock(ledger, step, LOCK if step in locked else None)
        elif isinstance(step, dict):
            known.append({"id": f"r{len(known)}", "status": S.PENDING, "attempt": 0, **step})
            ledger.add(known[-1]["id"], **step)
        elif known:
            run, happening = known[step[0] % len(known)], step[1]
            if (run["status"], happening) not in TRANSITIONS:
                continue
            may = happening is not E.DISPATCHED or run in line
            run["attempt"] += may and happening is E.DISPATCHED
            moved = ledger.record(run["id"], happening, run["status"], attempt=run["attempt"])
            assert (moved is not None) is may
            run["status"] = moved.status if may else run["status"]
        line = put_in_line(line, expected_runnable(known, locked))
        order = sorted(line, key=lambda run: (-run["priority"], run["round"], known.index(run)))
        assert ledger.runnable() == [run["id"] for run in order]
        assert places_of(ledger, [run["id"] for run in known]) == expected_places(known, order)


def places_of(ledger, ids):
    """Whether each of these runs is runnable, which ones start before it, and which run of its workspace is active."""
    with ledger.database.read() as session:
        found = places.of(session, ids)
    return {run: (place.runnable, place.before, place.in_front, place.active) for run, place in found.items()}


def expected_places(known, order):
    """By the plain rule: whoever starts before it in its pool, by kind and requirement, or in its workspace."""
    expected = {}
    for number, run in enumerate(order):
        before = Counter((other["kind"], other["terraform"]) for other in order[:number])
        expected[run["id"]] = (True, before, 0, None)
    changing = [run for run in known if run["kind"] is APPLY]
    waiting = sorted((run for run in changing if run["status"] is S.PENDING), key=lambda run: -run["priority"])
    for run in waiting:
        own = [other for other in waiting if other["workspace"] == run["workspace"]]
        active = [
            (other["id"], other["status"])
            for other in changing
            if other["workspace"] == run["workspace"] and other["status"].holds_slot
        ]
        expected.setdefault(run["id"], (False, {}, own.index(run), active[0] if active else None))
    return expected


def test_places_of_any_number_of_runs_are_read_in_two_statements_and_say_who_is_held(ledger):
    for number in range(3):
        ledger.add(f"plan-{number}", PLAN)
    ledger.add("next")
    set_lock(ledger, "net", LOCK)
    ledger.add("held")
    sent: list[str] = []
    with ledger.database.read() as session:
        event.listen(session.connection(), "before_cursor_execute", lambda *args: sent.append(args[2]))
        found = places.of(session, ["plan-2", "next", "held", "gone"])
    assert len(sent) == 2
    assert (found["plan-2"].before, found["plan-2"].pool) == ({(PLAN, None): 2}, "default")
    assert [(found[run].lock, found[run].in_front) for run in ("next", "held")] == [(LOCK, 0), (LOCK, 1)]
    assert found.keys() == {"plan-2", "next", "held"}


@pytest.mark.parametrize("backend", ["sqlite"])
def test_places_are_read_from_what_waits_and_not_from_the_history_of_the_pool(ledger):
    ledger.add("run", PLAN)
    sent: list[tuple[str, object]] = []
    with ledger.database.read() as session:
        connection = session.connection()
        event.listen(connection, "before_cursor_execute", lambda *args: sent.append((args[2], args[3])))
        places.of(session, ["run"])
        workspace_queue.queued(session, "default", 10)
        plans = [str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", given).all()) for sql, given in [*sent]]
    assert "ix_runs_start" in plans[0]
    assert "ix_runs_waiting" in plans[1]
    assert not any("ix_runs_pool" in plan for plan in plans)


@pytest.mark.parametrize("backend", ["sqlite"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.none() | st.tuples(st.sampled_from("abc"), st.integers(0, 1)), max_size=40))
def test_nobody_waits_for_more_than_two_runs_of_another_beyond_as_many_as_it_has_before(ledger, steps):
    """Priorities go first, a workspace's own runs by age. None: the one slot becomes free."""
    empty(ledger)
    waiting, passed = [], {}
    for number, step in enumerate(steps):
        if step:
            workspace, priority = step
            run = (f"r{number:02}", workspace, priority)
            passed[run] = Counter({workspace: 0}), sum(other[1:] == run[1:] for other in waiting)
            waiting.append(run)
            ledger.add(run[0], PLAN, workspace=f"{workspace}", priority=priority)
        elif waiting:
            name = ledger.runnable(PLAN)[0]
            ledger.dispatch(name, attempt=1)
            started = next(run for run in waiting if run[0] == name)
            waiting.remove(started)
            assert started[2] == max(run[2] for run in [*waiting, started])
            assert not any(run[1:] == started[1:] and run[0] < name for run in waiting)
            for run in waiting:
                if run[2] == started[2]:
                    passed[run][0][started[1]] += 1
            others, own_before = passed[started]
            assert all(count <= own_before + 2 for other, count in others.items() if other != started[1])


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize("kind", RunKind, ids=str)
def test_five_hundred_runs_of_one_workspace_do_not_delay_anothers_first(ledger, kind):
    with ledger.database.begin() as session:
        for number in range(500):
            ledger.add_in(session, f"many-{number:03}", kind, priority=1)
    ledger.add("first", kind, workspace="dns", priority=1)
    ledger.add("second", kind, workspace="dns", priority=1)
    ledger.add("urgent", kind, workspace="dns", priority=2)
    started = []
    for _ in range(6):
        started.append(ledger.runnable()[0])
        ledger.dispatch(started[-1], attempt=1)
        ledger.record(started[-1], E.FAILED, S.PLANNING)
    assert started[0] == "urgent"
    assert started.index("first") <= 3
    assert started.index("second") <= 5


def test_a_locked_workspace_lets_plans_start_and_no_run_that_changes_state(ledger):
    ledger.add("active")
    ledger.dispatch("active")
    ledger.add("b")
    ledger.add("other", workspace="dns")
    assert set_lock(ledger, "net", LOCK) is None
    ledger.add("p", PLAN)
    assert ledger.record("active", E.AGENT_LOST, S.PLANNING).runnable is False, "planned anew, it changes state again"
    assert ledger.dispatch("active") is ledger.dispatch("b") is None
    assert set(ledger.runnable()) == {"other", "p"}
    assert set_lock(ledger, "net", None) == LOCK
    assert set(ledger.runnable()) == {"active", "other", "p"}


def test_a_lock_is_its_owners_and_is_set_again_without_becoming_younger(ledger, now):
    set_lock(ledger, "net", LOCK)
    later = now + timedelta(hours=1)
    assert set_lock(ledger, "net", MaintenanceLock("ana", later, "still at it")) == LOCK
    now_it_is = MaintenanceLock("ana", LOCK.at, "still at it")
    assert set_lock(ledger, "net", MaintenanceLock("bob", later, "me too")) == now_it_is
    with ledger.database.read() as session:
        assert workspace_queue.maintenance_lock(session, "net") == now_it_is
        assert workspace_queue.maintenance_lock(session, "dns") is None
    for refused in (LOCK, None):
        with pytest.raises(UnknownWorkspace):
            set_lock(ledger, "absent", refused)


LOCK = MaintenanceLock("ana", datetime(2030, 1, 1, tzinfo=UTC), "the provider is upgraded")


def set_lock(ledger, workspace, lock):
    with ledger.database.begin() as session:
        return workspace_queue.set_maintenance_lock(session, workspace, lock, ledger.now)


def empty(ledger):
    """Begin an example anew: Hypothesis keeps the fixture."""
    with ledger.database.begin() as session:
        session.execute(delete(RunEventRecord))
        session.execute(delete(Run))
        session.execute(delete(Workspace))
        for name in ("net", "dns", *"abc"):
            workspaces.save(session, WorkspaceSpec(name=name, source=DirectorySource(path="/code")), ledger.now)


QUERIES = {
    "the runnable runs": (workspace_queue.NEXT, {"pool": "default", "kind": APPLY, "limit": 10}),
    "whether any run waits": (workspace_queue.ANY, {"pool": "default"}),
    "the state of a workspace's queue": (workspace_queue.SITUATION, {"workspace": "net"}),
    "the round of a run": (workspace_queue.JOIN, {"run": "joins"}),
}


def enter_queue(ledger, *, length):
    """A busy workspace in which ``length`` runs wait, and another whose only run may start."""
    ledger.add("active")
    ledger.dispatch("active")
    ledger.add("free", workspace="dns")
    table = Base.metadata.tables["runs"]
    with ledger.database.begin() as session:
        active = session.execute(select(table).where(table.c.id == "active")).mappings().one()
        waiting = {**active, "status": S.PENDING, "priority": 1}
        session.execute(insert(table), [{**waiting, "id": f"waiting-{number}"} for number in range(length)])
        plan = {**waiting, "kind": PLAN, "runnable": True}
        session.execute(
            insert(table), [{**plan, "id": f"waiting-p{number}", "round": number} for number in range(length)]
        )
        session.execute(insert(table), [{**plan, "id": "joins", "runnable": False}])
    with ledger.database.begin() as session:
        session.execute(text("ANALYZE"))


def explained(session, prefix, statement, parameters):
    """What the database says of the very statement that the store sends."""
    sent = []
    connection = session.connection()
    event.listen(connection, "before_cursor_execute", lambda *args: sent.append(args[2:4]))
    connection.execute(statement, parameters)
    cursor = connection.connection.cursor()
    cursor.execute(prefix + sent[0][0], sent[0][1])
    return cursor.fetchall()


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("backend", ["sqlite"])
def test_sqlite_takes_the_same_steps_however_many_runs_wait(ledger, query):
    enter_queue(ledger, length=1000)
    with ledger.database.begin() as session:
        many = steps_of(session, *QUERIES[query])
        session.execute(text("DELETE FROM runs WHERE id LIKE 'waiting-%' AND id NOT LIKE 'waiting-%7'"))
        assert steps_of(session, *QUERIES[query]) == many


def steps_of(session, statement, parameters):
    """How many steps SQLite's virtual machine takes for a query."""
    counter = itertools.count()
    driver = session.connection().connection.driver_connection
    driver.set_progress_handler(lambda: next(counter) < 0, 1)
    try:
        with session.begin_nested() as undone:
            result = session.connection().execute(statement, parameters)
            assert result.all() if result.returns_rows else result.rowcount
            undone.rollback()
    finally:
        driver.set_progress_handler(None, 1)
    return next(counter)


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("backend", ["sqlite"])
def test_sqlite_answers_from_an_index_and_sorts_nothing(ledger, query):
    enter_queue(ledger, length=1000)
    with ledger.database.begin() as session:
        rows = explained(session, "EXPLAIN QUERY PLAN ", *QUERIES[query])
    plan = [
        row[-1] for row in rows if not row[-1].startswith(("SCALAR SUBQUERY", "CORRELATED SCALAR", "SCAN CONSTANT ROW"))
    ]
    assert plan
    assert all(line.startswith("SEARCH ") and "INDEX" in line for line in plan), plan


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("backend", ["postgresql"])
def test_postgresql_answers_from_an_index_and_reads_a_few_pages(ledger, query):
    enter_queue(ledger, length=1000)
    with ledger.database.begin() as session:
        ((explanation,),) = explained(session, "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ", *QUERIES[query])
    plan = explanation[0]["Plan"]
    if plan["Node Type"] == "ModifyTable":
        (plan,) = plan["Plans"]  # what is read, without the indexes that are written
    # PostgreSQL reads a table of a few rows as a whole.
    nodes = [node for node in nodes_of(plan) if node.get("Relation Name") not in ("workspaces", "rescued_states")]
    assert {node["Node Type"] for node in nodes} <= {"Limit", "Result", "Index Scan", "Index Only Scan"}
    assert all(node.get("Rows Removed by Filter", 0) == 0 for node in nodes)
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 20


def nodes_of(plan):
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes_of(child)
