"""The slot map on both servers: a real Valkey, and fakeredis, which passes whatever the real one passes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import fakeredis
import pytest
import redis

from tests.slots.invariants import POOL, check
from workers.slots.slot_map import SlotMap


@dataclass
class Clock:
    """A clock that stands still until a test moves it."""

    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["valkey", "fakeredis"])
def client(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    if request.param == "valkey":
        yield request.getfixturevalue("valkey")
        return
    with fakeredis.FakeRedis(server=fakeredis.FakeServer(version=(7,))) as fake:
        yield fake


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def slots(client: redis.Redis, clock: Clock) -> Iterator[SlotMap]:
    """The slot map of a pool without agents; its invariants hold when the test ends."""
    slots = SlotMap(client, POOL, clock)
    yield slots
    check(client, slots)
