"""What an agent may write into its own pool's keys, and what is left of it after a repair (F36)."""

from __future__ import annotations

import secrets

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.slots.conftest import Clock
from tests.slots.invariants import POOL, check, key
from workers.protocol.errors import Damaged
from workers.protocol.kinds import RunKind
from workers.slots.keys import SLOT_MAP
from workers.slots.slot_map import SlotMap

NAMES = st.sampled_from(
    ["run-1", "run-2", "agent-1", "agent-2", "agent-1/0", "agent-1/1", "agent-9/2", "\x1b[2J", "", "x" * 300]
)
WORDS = st.sampled_from(
    [
        "plan",
        "plan_and_apply",
        "agent-1",
        "agent-9",
        "0",
        "1",
        "2",
        "9",
        "running",
        "reserved",
        "-",
        "nan",
        "inf",
        "1000",
        "1e300",
        "token",
        "",
    ]
)
RECORDS = st.lists(WORDS, max_size=12).map(" ".join) | st.binary(max_size=40)
SCORES = st.sampled_from([0.0, -1.0, 1e12, 1e12 + 3, -1e12 - 7, 1e13, float("inf"), float("-inf")])


def write(client: redis.Redis, name: str, field: str, record: str | bytes, score: float) -> None:
    """Write as an agent may: into a hash or an index of its pool."""
    try:
        if name in ("leases", "agents"):
            client.hset(key(name), field, record)
        else:
            client.zadd(key(name), {field: score})
    except redis.ResponseError:
        pass


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(SLOT_MAP), NAMES, RECORDS, SCORES), min_size=1, max_size=8))
def test_whatever_is_written_everything_is_read_and_a_repair_leaves_a_whole_map(
    valkey: redis.Redis, written: list[tuple[str, str, str | bytes, float]]
) -> None:
    valkey.flushall()
    slots = SlotMap(valkey, POOL, Clock())
    for agent in ("agent-1", "agent-2"):
        slots.register(agent, f"{agent}-id")
    for number in range(2):
        slots.acquire(f"run-{number}", RunKind.PLAN, secrets.token_hex(16))
    for record in written:
        write(valkey, *record)

    # None of these raises.
    slots.snapshot(), slots.find("run-1"), slots.agent("agent-1")
    slots.repair()

    check(valkey, slots)
    slots.register("agent-1", "another")
    assert slots.acquire("run-9", RunKind.PLAN, secrets.token_hex(16))


@pytest.mark.parametrize("name", SLOT_MAP)
def test_a_key_of_another_type_is_removed(client: redis.Redis, clock: Clock, name: str) -> None:
    client.set(key(name), "none of ours")
    slots = SlotMap(client, POOL, clock)
    assert slots.repair() == [(name, "")]
    slots.register("agent-1", "id")
    check(client, slots)


def test_a_map_with_too_many_records_is_emptied(
    valkey: redis.Redis, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.slots.slot_map.MOST_RECORDS", 10)
    slots = SlotMap(valkey, POOL, clock)
    valkey.hset(key("agents"), mapping={f"agent-{number}": "x" for number in range(11)})
    with pytest.raises(Damaged, match="too many records"):
        slots.snapshot()
    assert slots.repair() == [("agents", "")]
    check(valkey, slots)


def test_words_of_a_later_version_stay(slots: SlotMap, client: redis.Redis) -> None:
    slots.register("agent-1", "id")
    lease = slots.acquire("run-1", RunKind.PLAN, "token-of-run-1-xx")
    for name, field in (("leases", "run-1"), ("agents", "agent-1")):
        client.hset(key(name), field, client.hget(key(name), field) + b" later words")
    assert slots.repair() == []
    assert slots.find("run-1") == lease
