"""Logs move from Redis into the database when a phase has ended: in order, once, bounded, whoever follows meanwhile."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import redis

from tests.services.conftest import POOL, ControlPlane, HandAgent
from workers.core.logs import STORED_BYTES
from workers.protocol.kinds import RunKind
from workers.protocol.log_lines import LogLine
from workers.protocol.messages import LIVE_LOG_BYTES, Order
from workers.services.runs import decide, deliver, report, retention, views
from workers.services.runs import logs as service
from workers.services.runs.logs import LogReader, move_logs
from workers.slots.keys import PoolKeys
from workers.slots.log_stream import RunLog
from workers.store.models import Base


def writer(control: ControlPlane, order: Order) -> RunLog:
    """The log as the agent of an order writes it."""
    return RunLog(control.redis, POOL, order.run)


def write(log: RunLog, phase: str, *texts: str) -> None:
    log.append([LogLine(phase, text, 1.0) for text in texts])


def reader(control: ControlPlane, run: str = "run-1") -> LogReader:
    return LogReader(control.system, views.one(control.system.database, run))


def read(control: ControlPlane, run: str = "run-1") -> list[tuple[str, str]]:
    return [(line.phase, line.text) for line in reader(control, run)]


def live(control: ControlPlane, run: str = "run-1") -> int:
    return control.redis.xlen(PoolKeys(POOL).log(run)) + control.redis.xlen(PoolKeys(POOL).log_beginning(run))


def stored(control: ControlPlane, run: str = "run-1") -> list[bytes]:
    pieces = Base.metadata.tables["run_logs"]
    with control.system.database.read() as session:
        found = session.execute(pieces.select().where(pieces.c.run == run).order_by(pieces.c.number)).all()
    return [piece.content for piece in found]


@pytest.fixture
def agent(control: ControlPlane) -> HandAgent:
    control.workspace()
    return control.agent()


@pytest.fixture
def order(control: ControlPlane, agent: HandAgent) -> Order:
    """The order of a plan that was started."""
    control.submit()
    order = agent.order()
    assert agent.start(order)
    return order


def test_the_log_of_a_phase_moves_when_it_has_ended_and_is_read_as_one_with_what_follows(
    control: ControlPlane, agent: HandAgent, order: Order
) -> None:
    following, late = reader(control), reader(control)
    write(writer(control, order), "plan", "one", "two")
    seen = [line.text for line in following.read()]
    assert move_logs(control.system) == 0  # it executes
    assert live(control) > 0
    write(writer(control, order), "plan", "three")
    agent.finish(order)

    assert move_logs(control.system) == 1
    assert (live(control), len(stored(control))) == (0, 1)
    assert move_logs(control.system) == 0
    decide.confirm(control.system, order.run)
    apply = agent.order()
    assert agent.start(apply)
    write(writer(control, apply), "apply", "four")
    assert [*seen, *(line.text for line in following)] == ["one", "two", "three", "four"]
    assert [(line.phase, line.text, line.attempt) for line in late] == [
        ("plan", "one", 1), ("plan", "two", 1), ("plan", "three", 1), ("apply", "four", 1)
    ]  # fmt: skip
    agent.finish(apply, changed=False)

    assert move_logs(control.system) == 1
    assert not control.redis.exists(PoolKeys(POOL).log(order.run))
    control.redis.flushall()
    assert [text for _, text in read(control)] == ["one", "two", "three", "four"]


def test_a_move_that_stops_before_it_removes_what_it_copied_doubles_and_loses_nothing(
    control: ControlPlane, agent: HandAgent, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(writer(control, order), "plan", "one", "two")
    agent.finish(order)

    def killed(*_: Any, **__: Any) -> None:
        raise redis.ConnectionError

    with monkeypatch.context() as half_way:
        half_way.setattr(RunLog, "trim", killed)
        with pytest.raises(redis.ConnectionError):
            move_logs(control.system)
    assert (len(stored(control)), live(control) > 0) == (1, True)
    assert [text for _, text in read(control)] == ["one", "two"]
    write(writer(control, order), "plan", "late")
    move_logs(control.system)
    assert [text for _, text in read(control)] == ["one", "two", "late"]
    assert live(control) == 0


def test_of_two_moves_at_once_one_stores_the_lines(
    control: ControlPlane, agent: HandAgent, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(writer(control, order), "plan", "one")
    agent.finish(order)
    pack, others = service._pack, [move_logs]

    def meanwhile(*arguments: Any) -> Any:
        packed = pack(*arguments)
        while others:
            assert others.pop()(control.system) == 1
        return packed

    monkeypatch.setattr(service, "_pack", meanwhile)
    assert move_logs(control.system) == 0
    assert [text for _, text in read(control)] == ["one"]
    assert len(stored(control)) == 1


def test_a_reader_that_looks_while_the_log_moves_misses_nothing(
    control: ControlPlane, agent: HandAgent, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its look at Redis and the one at the database, and just before."""
    write(writer(control, order), "plan", "one", "two")
    agent.finish(order)
    look, moves = RunLog.read, [move_logs]

    def looked(log: RunLog, *arguments: Any) -> list[LogLine]:
        found = look(log, *arguments)
        while moves:
            moves.pop()(control.system)
        return found

    following = reader(control)
    monkeypatch.setattr(RunLog, "read", looked)
    assert [line.text for line in following] == ["one", "two"]
    assert live(control) == 0


def test_an_endless_log_costs_no_more_than_its_budgets_and_says_what_is_missing(
    control: ControlPlane, agent: HandAgent, order: Order
) -> None:
    """Noise, which can't be compressed, of both phases and an attempt before."""
    chance, budget = random.Random(1), 0
    lines = 4_000

    def flood(phase: str, order: Order) -> None:
        log = writer(control, order)
        for start in range(0, lines, 500):
            numbers = range(start + 1, start + 501)
            write(log, phase, *(f"{number} {chance.randbytes(700).hex()}" for number in numbers))
        sizes = [control.redis.memory_usage(key) for key in control.redis.scan_iter("ts:{default}:log:*")]
        assert sum(sizes) < LIVE_LOG_BYTES

    flood("plan", order)
    agent.finish(order)
    move_logs(control.system)
    decide.confirm(control.system, order.run)
    apply = agent.order()
    assert agent.start(apply)
    flood("apply", apply)
    agent.finish(apply, changed=False)
    move_logs(control.system)

    budget = sum(map(len, stored(control)))
    assert STORED_BYTES * 0.8 < budget <= STORED_BYTES
    shown = list(reader(control))
    for phase in ("plan", "apply"):
        ours = [line for line in shown if line.phase == phase]
        numbers = [int(line.text.split()[0]) for line in ours if line.number]
        assert (numbers[0], numbers[-1]) == (1, lines)
        assert numbers == sorted(numbers)
        gaps = [int(line.text.split()[1]) for line in ours if not line.number]
        assert sum(gaps) + len(numbers) == lines


def test_the_middle_pieces_of_a_log_go_first_and_it_is_said(
    control: ControlPlane, agent: HandAgent, order: Order
) -> None:
    agent.finish(order)
    chance = random.Random(2)
    for piece in range(5):
        noise = [f"{piece} {chance.randbytes(3_000).hex()}" for _ in range(250)]
        write(writer(control, order), "plan", *noise)
        assert move_logs(control.system) == 1
    contents = stored(control)
    assert sum(map(len, contents)) <= STORED_BYTES
    assert (contents[0] == b"", contents[1], contents[-1] == b"") == (False, b"", False)
    shown = [line.text[:40] for line in reader(control)]
    assert (shown[0][0], shown[-1][0]) == ("0", "4")
    assert any("lines are missing here" in text for text in shown)


def test_a_log_of_an_agent_before_0_2_moves_like_any_other(
    control: ControlPlane, agent: HandAgent, order: Order
) -> None:
    for text in ("one", "two"):
        control.redis.xadd(PoolKeys(POOL).log(order.run), {"phase": "plan", "text": text, "at": 1.0})
    assert read(control) == [("plan", "one"), ("plan", "two")]
    agent.finish(order)
    move_logs(control.system)
    assert [(line.text, line.attempt, line.number) for line in reader(control)] == [("one", 1, 1), ("two", 1, 2)]


@pytest.mark.parametrize("key", ["ts:{default}:log:nobody", "ts:{other}:log:run-1"])
def test_what_an_agent_writes_into_the_log_of_no_run_of_its_pool_is_removed(
    control: ControlPlane, order: Order, key: str
) -> None:
    write(writer(control, order), "plan", "one")
    control.redis.xadd(key, {"text": "forged"})
    move_logs(control.system)
    assert not control.redis.exists(key)
    assert read(control) == [("plan", "one")]


def test_ids_that_no_server_wrote_do_not_keep_later_lines_from_being_stored(
    control: ControlPlane, agent: HandAgent, order: Order
) -> None:
    key = PoolKeys(POOL).log(order.run)
    control.redis.xadd(key, {"text": "forged"}, id="18446744073709551615-18446744073709551614")
    agent.finish(order)
    move_logs(control.system)
    write(writer(control, order), "plan", "one")
    move_logs(control.system)
    assert read(control) == [("plan", "one")]


def test_the_largest_logs_move_while_their_runs_execute_where_those_of_a_pool_take_too_much(
    control: ControlPlane, agent: HandAgent, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    control.submit(RunKind.PLAN)
    small = agent.order()
    assert agent.start(small)
    write(writer(control, small), "plan", "a line")
    write(writer(control, order), "plan", *(["x" * 5_000] * 100))
    assert move_logs(control.system) == 0
    monkeypatch.setattr(service, "POOL_LIVE_BYTES", 100_000)
    assert move_logs(control.system) == 1
    assert (live(control, order.run), live(control, small.run)) == (0, 2)
    write(writer(control, order), "plan", "last")
    assert [text for _, text in read(control, order.run)] == ["x" * 5_000] * 100 + ["last"]


def test_the_log_of_a_lost_attempt_is_stored_as_its_own_before_the_next_one_begins(
    control: ControlPlane, agent: HandAgent, order: Order
) -> None:
    write(writer(control, order), "plan", "lost")
    report.agent_gone(control.system, POOL, agent.name, agent.instance_id, "its pod is gone")
    again = control.agent("default-2")
    order = again.order()
    assert again.start(order)
    write(writer(control, order), "plan", "again")
    assert [(line.text, line.attempt) for line in reader(control)] == [("lost", 1), ("again", 2)]


def test_a_log_goes_with_its_run(control: ControlPlane, agent: HandAgent, clock_ahead: Callable[[float], None]) -> None:
    run = control.submit(RunKind.PLAN)
    order = agent.order()
    assert agent.start(order)
    write(writer(control, order), "plan", "one")
    agent.finish(order, changed=False)
    move_logs(control.system)
    deliver.delivered(control.system, [run.id])
    clock_ahead(91 * 86400.0)
    assert retention.purge(control.system)["runs"] == 1
    assert stored(control) == []
