"""F39: redis-py repeats a call whose reply was lost, and the call acts once.

On a real server, through the client that control plane and agents use: the server has acted, and the connection ends
before its reply arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis

from tests.slots.invariants import POOL, check
from tests.slots.lossy import Way, lossy
from workers.protocol.kinds import RunKind
from workers.protocol.leases import CancelMode, CancelOutcome, SlotState
from workers.protocol.log_lines import LogLine
from workers.protocol.redis_address import parse
from workers.slots.announcements import announcement
from workers.slots.connection import connect, run_together
from workers.slots.keys import PoolKeys
from workers.slots.locks import PoolLock
from workers.slots.log_stream import RunLog
from workers.slots.report_queue import ReportQueue
from workers.slots.slot_map import SlotMap
from workers.slots.wake_up import WakeUp

PLAN, APPLY = RunKind.PLAN, RunKind.PLAN_AND_APPLY


@pytest.fixture
def way(valkey: redis.Redis, valkey_url: str) -> Iterator[Way]:
    """Four idle agents; one that executes an apply, is to apply, and keeps a plan: on a lossy way."""
    slots = SlotMap(valkey, POOL)
    for name in ("redeemed", "ordered", "waiting"):
        slots.register(f"agent-of-{name}", "life")
        lease = slots.acquire(name, APPLY, f"token-of-{name}")
        assert lease
        slots.drain(lease.agent)
    slots.redeem("agent-of-redeemed", "redeemed", "token-of-redeemed")
    slots.reserve("waiting", "token-of-waiting", 2e9)
    for number in range(4):
        slots.register(f"idle-{number}", "life")
    with lossy(valkey_url) as way:
        yield way


@pytest.fixture
def client(way: Way) -> Iterator[redis.Redis]:
    client = connect(parse(way.url))
    yield client
    client.close()


def _case(call: Callable[[SlotMap], Any], answer: Any) -> Any:
    return pytest.param(call, answer, id=f"{call.__code__.co_names[0]} {answer}")


CALLS = [
    _case(lambda slots: slots.claim_idle(2, "claim", ["idle-1", "idle-2", "idle-0"]), ["idle-1", "idle-2"]),
    _case(lambda slots: slots.claim_idle(1, "claim", ["nobody", "idle-3", "idle-1"]), ["idle-3"]),
    _case(lambda slots: slots.revoke("ordered", "token-of-ordered"), True),
    _case(lambda slots: slots.revoke("redeemed", "token-of-redeemed"), False),
    _case(lambda slots: slots.cancel("ordered", CancelMode.INTERRUPT), CancelOutcome.REVOKED),
    _case(lambda slots: slots.cancel("waiting", CancelMode.KILL), CancelOutcome.REVOKED),
    _case(lambda slots: slots.cancel("redeemed", CancelMode.KILL), CancelOutcome.REQUESTED),
    _case(lambda slots: slots.release("redeemed", "token-of-redeemed"), True),
    _case(lambda slots: slots.release("redeemed", "an older token"), False),
    _case(lambda slots: slots.reserve("redeemed", "token-of-redeemed", 2e9), True),
    _case(lambda slots: slots.resume("waiting", "token-of-waiting", "next").token, "next"),
    _case(lambda slots: slots.redeem("agent-of-ordered", "ordered", "token-of-ordered"), True),
    _case(lambda slots: slots.acquire("new", PLAN, "token").token, "token"),
    _case(lambda slots: slots.register("late", "life"), None),
    _case(lambda slots: slots.drain("idle-0"), True),
    _case(lambda slots: [lease.run for lease in slots.deregister("agent-of-waiting", settled=())], ["waiting"]),
    _case(lambda slots: slots.deregister("agent-of-waiting", settled=["token-of-waiting"]), []),
    _case(lambda slots: slots.mark_silent(30), []),
    _case(lambda slots: slots.give_back("idle-0", "nobody's"), True),
]


@pytest.mark.parametrize(("call", "answer"), CALLS)
def test_a_verb_is_answered_as_if_its_reply_had_arrived(
    way: Way, client: redis.Redis, valkey: redis.Redis, call: Callable[[SlotMap], Any], answer: Any
) -> None:
    slots = SlotMap(client, POOL)
    way.losing = 1
    assert call(slots) == answer
    assert way.lost == 1
    check(valkey, SlotMap(valkey, POOL))


def test_a_claim_whose_reply_was_lost_claims_no_more_than_it_was_to(way: Way, client: redis.Redis) -> None:
    """Twice as many were claimed, and the pool was removed below its minimum."""
    slots = SlotMap(client, POOL)
    way.losing = 1
    claimed = slots.claim_idle(2, "claim")
    assert {agent.name for agent in slots.snapshot() if agent.claim} == set(claimed)
    way.losing = 1
    assert slots.take_over(claimed[0], "next", expect="claim")
    way.losing = 1
    assert slots.give_back(claimed[1], "claim")
    assert [agent.name for agent in slots.snapshot() if agent.claim] == claimed[:1]


def test_what_was_revoked_stays_revoked_for_whoever_asks(way: Way, client: redis.Redis) -> None:
    """Also for another process, where this one died before it stored what becomes of the run."""
    slots = SlotMap(client, POOL)
    way.losing = 1
    assert slots.revoke("ordered", "token-of-ordered")
    assert slots.cancel("ordered", CancelMode.INTERRUPT) is CancelOutcome.REVOKED
    assert slots.revoke("ordered", "token-of-ordered")
    lease = slots.find("ordered")
    assert lease
    assert (lease.state, lease.revoked) == (SlotState.RUNNING, True)


def test_lines_of_a_log_are_not_doubled(way: Way, client: redis.Redis) -> None:
    log = RunLog(client, POOL, "run")
    log.append([LogLine("plan", "first", 1.0)])
    way.losing = 1
    log.append([LogLine("plan", "second", 1.0), LogLine("plan", "third", 1.0)])
    way.losing = 2  # also where the writer repeats the call itself
    lines = [LogLine("plan", "fourth", 1.0)]
    with pytest.raises(redis.ConnectionError):
        log.append(lines)
    log.append(lines)
    RunLog(client, POOL, "run").append([LogLine("apply", "fifth", 1.0)])
    assert [line.text for line in log.read()] == ["first", "second", "third", "fourth", "fifth"]


def test_reports_are_taken_though_the_reply_that_had_them_was_lost(way: Way, client: redis.Redis) -> None:
    queue = ReportQueue(client, POOL)
    for report in (b"first", b"second", b"third"):
        assert queue.put(report)
    way.losing = 1
    assert [found.content for found in queue.take(2)] == [b"first", b"second"]
    assert [found.content for found in queue.take(2)] == [b"third"]
    assert queue.take(2) == []


def test_an_announcement_is_told_twice_alike(way: Way, client: redis.Redis) -> None:
    way.losing = 1
    later = announcement(b"result", "task", "PLANNING", {}, step=2, keep=timedelta(hours=1))
    earlier = announcement(b"result", "task", "PENDING", {}, step=1, keep=timedelta(hours=1))
    assert run_together(client, [later]) == [1]
    assert not run_together(client, [earlier])[0]


def test_a_message_that_asks_for_a_job_is_due_once(way: Way, client: redis.Redis) -> None:
    way.losing = 1
    assert WakeUp(client, POOL, "dispatch").claim(30) == 0
    assert WakeUp(client, POOL, "dispatch").claim(30) is None


def test_a_job_that_was_begun_may_be_asked_for_again_but_not_at_once(way: Way, client: redis.Redis) -> None:
    job = WakeUp(client, POOL, "scale")
    assert job.claim(30) == 0
    job.received(20)
    way.losing = 1
    pause = job.claim(30)
    assert pause is not None
    assert 15 < pause <= 20
    assert job.claim(30) is None
    assert 45 < client.ttl(PoolKeys(POOL).wake_up("scale")) <= 50, "a message that is lost is so after its pause"
    job.received()
    assert job.claim(30) == 0


def test_work_under_a_lock_is_done_once_and_leaves_it_free(way: Way, client: redis.Redis) -> None:
    rounds: list[int] = []
    for number in range(2):
        way.losing = 1
        assert PoolLock(client, POOL, "dispatch").work(lambda: rounds.append(number), 30)  # noqa: B023 - called at once
    assert rounds == [0, 1]
