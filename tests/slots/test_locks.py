"""One worker for a job of a pool at a time, and no wake-up lost."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import redis

from tests.waiting import eventually
from workers.slots import locks
from workers.slots.locks import LOCK_TTL, LockLost, PoolLock, renew_lock


def test_one_owner_at_a_time(client: redis.Redis) -> None:
    lock = PoolLock(client, "pool", "dispatch")
    assert lock.request("first", 10)
    assert not lock.request("second", 10)
    assert lock.request("first", 10), "asking twice is safe"


def test_work_asked_for_meanwhile_is_another_round_for_the_owner(client: redis.Redis) -> None:
    lock = PoolLock(client, "pool", "dispatch")
    lock.request("first", 10)
    lock.request("second", 10)
    lock.request("third", 10)
    assert not lock.finish("first", 10, 1)
    assert not lock.request("second", 10)
    assert not lock.finish("first", 10, 2)
    assert lock.finish("first", 10, 3)
    assert lock.request("second", 10)


def test_a_request_before_the_work_began_asks_for_nothing_more(client: redis.Redis) -> None:
    lock = PoolLock(client, "pool", "dispatch")
    lock.request("first", 10)
    lock.request("second", 10)
    lock.drop("first")
    assert lock.request("third", 10)
    assert lock.finish("third", 10)


def test_the_owner_of_an_expired_lock_does_the_work_that_was_asked_for(client: redis.Redis) -> None:
    lock = PoolLock(client, "pool", "dispatch")
    lock.request("first", 0.05)
    lock.request("second", 10)
    eventually(lambda: not client.exists("ts:{pool}:lock:dispatch"))
    assert not lock.finish("first", 10)
    assert not lock.request("second", 10), "the lock is the first's again"


def test_who_lost_the_lock_ends_nobody_elses_work(client: redis.Redis) -> None:
    lock = PoolLock(client, "pool", "dispatch")
    lock.request("first", 0.05)
    eventually(lambda: lock.request("second", 10))
    assert lock.finish("first", 10)
    lock.drop("first")
    assert not lock.request("third", 10)


def test_a_dropped_lock_is_free_at_once_and_jobs_are_apart(client: redis.Redis) -> None:
    dispatch, cycle = (PoolLock(client, "pool", job) for job in ("dispatch", "cycle"))
    dispatch.request("first", 10)
    assert cycle.request("second", 10)
    dispatch.drop("first")
    assert dispatch.request("second", 10)


def test_work_goes_round_again_for_whoever_asked_meanwhile_and_lets_go_of_the_lock(client: redis.Redis) -> None:
    lock, rounds = PoolLock(client, "pool", "dispatch"), []

    def do() -> None:
        rounds.append(len(rounds))
        if len(rounds) == 1:
            assert not lock.work(do, 30)  # somebody else, at this moment

    assert lock.work(do, 30)
    assert rounds == [0, 1]
    assert lock.request("next", 30)


def test_work_that_fails_lets_go_of_the_lock_and_says_why(client: redis.Redis) -> None:
    lock = PoolLock(client, "pool", "dispatch")

    def fail() -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        lock.work(fail, 30)
    assert lock.request("next", 30)


KEY = "ts:{pool}:lock:cycle"
WANTED = f"{KEY}:wanted"


class TestARoundThatTakesLongerThanItsLock:
    """Kept, a lock outlives any round; lost, it lets nothing more be changed under it."""

    def test_keeps_it_by_renewing(self, client: redis.Redis) -> None:
        lock, lives = PoolLock(client, "pool", "cycle"), []

        def do() -> None:
            for _ in range(3):
                client.pexpire(KEY, 500)  # as if nearly all of its time had passed
                renew_lock()
                lives.append(client.pttl(KEY))
            assert not lock.request("somebody else", 10)
            client.delete(f"{KEY}:wanted")

        assert lock.work(do, 120)
        assert all(119_000 < life <= 120_000 for life in lives)
        assert not client.exists(KEY)

    def test_and_has_lost_it_to_somebody_else_notices_and_leaves_that_one_alone(self, client: redis.Redis) -> None:
        lock = PoolLock(client, "pool", "cycle")

        def do() -> None:
            client.delete(KEY)
            assert lock.request("somebody else", 10)
            renew_lock()

        with pytest.raises(LockLost):
            lock.work(do, 120)
        assert client.get(KEY) == b"somebody else"

    def test_and_has_lost_it_notices_though_the_other_has_finished(self, client: redis.Redis) -> None:
        lock = PoolLock(client, "pool", "cycle")

        def do() -> None:
            client.delete(KEY)
            assert lock.work(lambda: None, 120)
            renew_lock()

        with pytest.raises(LockLost):
            lock.work(do, 120)
        assert lock.request("next", 10)

    def test_may_be_inside_of_another(self, client: redis.Redis) -> None:
        outer, inner = PoolLock(client, "pool", "cycle"), PoolLock(client, "pool", "dispatch")

        def do() -> None:
            assert inner.work(renew_lock, 30)
            client.delete(KEY)
            with pytest.raises(LockLost):
                inner.work(renew_lock, 30)

        outer.work(do, 120)
        renew_lock()  # under no lock there is none to lose


def test_requests_that_come_faster_than_rounds_end_do_not_keep_the_holder_for_ever(client: redis.Redis) -> None:
    """A cycle that takes longer than its tick is asked for again in each of its rounds."""
    lock, rounds, left = PoolLock(client, "pool", "cycle"), [], []

    def do() -> None:
        rounds.append(len(rounds))
        assert len(rounds) < 20, "it never ends"
        assert not lock.request("beat", 10)

    assert lock.work(do, rounds=3, left=lambda: left.append("a round"))
    assert (len(rounds), left) == (3, ["a round"])
    assert lock.work(lambda: rounds.append(3), left=lambda: left.append("another"))
    assert (len(rounds), left) == (4, ["a round"])


@pytest.mark.parametrize("asked", [True, False])
def test_every_step_of_a_lock_is_answered_alike_when_it_is_repeated(client: redis.Redis, asked: bool) -> None:
    """A client that lost the reply calls again."""
    lock = PoolLock(client, "pool", "cycle")

    def twice(step: Callable[[], bool]) -> bool:
        first, state = step(), client.mget(KEY, WANTED)
        assert (step(), client.mget(KEY, WANTED)) == (first, state)
        return first

    assert twice(lambda: lock.request("first", 10))
    assert twice(lambda: lock.renew("first", 10))
    for number in (1, 2):
        assert not twice(lambda: lock.request("second", 10))
        assert not twice(lambda number=number: lock.finish("first", 10, number))
    if asked:
        lock.request("second", 10)
        assert twice(lambda: lock.drop("first"))
    else:
        assert twice(lambda: lock.finish("first", 10, 3))
    assert not twice(lambda: lock.renew("first", 10))
    assert twice(lambda: lock.request("second", 10))


def test_a_repeated_end_of_a_round_takes_no_round_from_a_request_in_between(client: redis.Redis) -> None:
    lock = PoolLock(client, "pool", "cycle")
    lock.request("first", 10)
    lock.request("second", 10)
    assert not lock.finish("first", 10, 1)
    lock.request("second", 10)
    assert not lock.finish("first", 10, 1), "the reply was lost; the round that begins now sees both requests"
    assert lock.finish("first", 10, 2)


def test_nothing_of_a_lock_stays_for_ever(client: redis.Redis) -> None:
    lock = PoolLock(client, "pool", "cycle")
    lock.request("first", 10)
    lock.request("second", 5)
    assert 5 < client.ttl(WANTED) <= 10
    lock.renew("first", 20)
    assert 10 < min(client.ttl(KEY), client.ttl(WANTED)) <= 20


HOLD = """
import sys, time
import redis
from workers.slots.locks import PoolLock

def hang() -> None:
    print("holds", flush=True)
    time.sleep(60)

PoolLock(redis.Redis.from_url(sys.argv[1]), "pool", "cycle").work(hang, float(sys.argv[2]))
"""


def test_a_slow_call_keeps_the_lock_and_a_killed_process_does_not(redis_url: str) -> None:
    """F37: the lock of a holder that was killed is free soon, however long its calls may take."""
    lock, ttl = PoolLock(redis.Redis.from_url(redis_url), "pool", "cycle"), 0.6
    with subprocess.Popen([sys.executable, "-c", HOLD, redis_url, str(ttl)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"holds\n"
        began = time.monotonic()
        eventually(lambda: time.monotonic() - began > 3 * ttl)
        assert not lock.request("next", ttl), "its thread has renewed it, whatever the call that it waits for"
        holder.kill()
        holder.wait()
        killed = time.monotonic()
        eventually(lambda: lock.request("next", ttl))
        assert time.monotonic() - killed < 5 * ttl
    assert LOCK_TTL <= 15


def test_work_that_is_stuck_is_not_renewed_for_ever(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_PATIENCE", 0.3)
    lock = PoolLock(client, "pool", "cycle")

    def stuck() -> None:
        eventually(lambda: not client.exists(KEY))
        renew_lock()

    with pytest.raises(LockLost):
        lock.work(stuck, 0.3)


@pytest.mark.parametrize("owner", ["first", "second"])
def test_nobody_but_its_owner_renews_a_lock(client: redis.Redis, owner: str) -> None:
    lock = PoolLock(client, "pool", "cycle")
    assert not lock.renew(owner, 10)
    lock.request("first", 10)
    assert lock.renew(owner, 10) is (owner == "first")
