"""Runs that wait are given slots together: one round trip, one transaction, one round trip; and none stops another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from redis.exceptions import ConnectionError as Lost

from tests.services.conftest import POOL, ControlPlane, HandAgent
from tests.services.runs.test_isolation import spoil_source
from tests.services.runs.test_round_trips import counted
from workers.core.lifecycle import RunStatus
from workers.protocol.encryption import NoKey
from workers.protocol.kinds import RunKind
from workers.services.runs import decide, rescued, start
from workers.services.runs.dispatch import dispatch
from workers.slots import connection
from workers.slots.connection import Script
from workers.slots.slot_map import Ask
from workers.store import runs


def waiting(control: ControlPlane, count: int) -> list[str]:
    """Let plans wait, each in a workspace of its own, and two agents come that have six slots."""
    found = []
    for number in range(count):
        control.workspace(f"ws-{number}")
        found.append(control.submit(RunKind.PLAN, f"ws-{number}").id)
    for name in ("default-1", "default-2"):
        control.slots.register(name, "life-1")
    return found


def ordered(control: ControlPlane) -> list[str]:
    return [order.run for name in ("default-1", "default-2") for order in HandAgent(control, name).orders()]


def statuses(control: ControlPlane, runs: list[str]) -> list[RunStatus]:
    return [control.run(run).status for run in runs]


@pytest.mark.parametrize("count", [2, 5])
def test_however_many_they_are_they_cost_what_two_do(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    control.workspace("first")
    first = control.agent("default-0")
    control.submit(RunKind.PLAN, "first")  # connections are open from here on, and the server knows the verbs
    control.slots.drain(first.name)
    there = waiting(control, count)
    with counted(monkeypatch) as cost:
        assert dispatch(control.system, POOL) == count
    assert sorted(ordered(control)) == sorted(there)
    # Beside the lock and the counts of before and after: the slots, and what is sent; what waits is read once.
    assert (cost.round_trips, cost.transactions, cost.writing) == (5, 2, 1)
    assert cost.statements == 6 + 2 * count


def break_json(control: ControlPlane, name: str) -> None:
    """Leave a configuration that the database's driver can't decode."""
    with control.system.database.begin() as session:
        session.execute(sa.text("UPDATE workspaces SET spec = '{' WHERE name = :name"), {"name": name})


@pytest.mark.parametrize("spoil", [spoil_source, break_json])
def test_one_that_can_not_be_started_ends_alone(
    control: ControlPlane, spoil: Callable[[ControlPlane, str], None]
) -> None:
    there = waiting(control, 4)
    spoil(control, "ws-1")
    assert dispatch(control.system, POOL) == 3
    assert statuses(control, there) == [
        RunStatus.PLANNING, RunStatus.FAILED, RunStatus.PLANNING, RunStatus.PLANNING
    ]  # fmt: skip
    assert sorted(ordered(control)) == [there[0], *there[2:]]
    assert control.slots.stats().used == 3


def test_one_that_was_cancelled_meanwhile_gives_its_slot_back(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = waiting(control, 3)
    commit = start._committed

    def late(*arguments: Any) -> Any:
        monkeypatch.setattr(start, "_committed", commit)
        decide.cancel(control.system, there[1])
        return commit(*arguments)

    monkeypatch.setattr(start, "_committed", late)
    assert dispatch(control.system, POOL) == 2
    assert statuses(control, there) == [RunStatus.PLANNING, RunStatus.CANCELLED, RunStatus.PLANNING]
    assert sorted(ordered(control)) == [there[0], there[2]]
    assert control.slots.stats().used == 2


def test_one_whose_state_waits_for_a_key_holds_no_other_order_back(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, hand_over = waiting(control, 3), rescued.hand_over

    def without_key(system: Any, order: Any, pool: str) -> None:
        if order.run == there[0]:
            raise NoKey("none of this process's keys decrypts it")
        hand_over(system, order, pool)

    monkeypatch.setattr(rescued, "hand_over", without_key)
    assert dispatch(control.system, POOL) == 3
    assert sorted(ordered(control)) == there[1:]
    assert control.slots.stats().used == 3  # reconcile sends the first one's again


def test_a_transaction_that_fails_gives_all_slots_back_and_they_start_one_by_one(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = waiting(control, 3)
    record, held = runs.record, []

    def fails_for_the_last_of_several(session: Any, run: str, *arguments: Any, **facts: Any) -> Any:
        if run == there[2] and not held:
            held.append(control.slots.stats().used)
            raise ValueError("a fault")
        return record(session, run, *arguments, **facts)

    monkeypatch.setattr(runs, "record", fails_for_the_last_of_several)
    assert dispatch(control.system, POOL) == 3
    assert held == [3]
    assert sorted(ordered(control)) == there
    assert control.slots.stats().used == 3


class TestAServerThatKnowsNoVerb:
    def test_gives_each_run_one_slot_and_keeps_none(self, control: ControlPlane) -> None:
        there = waiting(control, 4)
        control.redis.script_flush()
        assert dispatch(control.system, POOL) == 4
        assert sorted(ordered(control)) == there
        assert control.slots.stats().used == 4

    def test_and_is_lost_in_the_middle_has_every_slot_given_back(
        self, control: ControlPlane, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waiting(control, 0)
        control.slots.acquire("first", RunKind.PLAN, "its-own")  # a repeated call would be answered with this
        call, calls = Script.__call__, []

        def lost(script: Script, *arguments: Any) -> Any:
            calls.append(script)
            if len(calls) == 3:
                raise Lost("in the middle")
            return call(script, *arguments)

        control.redis.script_flush()
        monkeypatch.setattr(Script, "__call__", lost)
        asks = [Ask(run, RunKind.PLAN, f"token-{run}") for run in ("first", "second", "third", "fourth")]
        with pytest.raises(Lost):
            control.slots.acquire_each(asks)
        assert len(calls) > 3  # what is given back is not known either
        (kept,) = [lease for agent in control.slots.snapshot() for lease in agent.leases]
        assert (kept.run, kept.token) == ("first", "its-own")

    def test_or_refuses_one_has_every_slot_given_back(self, control: ControlPlane) -> None:
        waiting(control, 0)
        control.redis.hset("ts:{default}:leases", "second", "of another version")
        asks = [Ask(run, RunKind.PLAN, f"token-{run}") for run in ("first", "second", "third")]
        with pytest.raises(connection.Damaged, match="second"):
            control.slots.acquire_each(asks)
        assert [agent.leases for agent in control.slots.snapshot()] == [(), ()]
