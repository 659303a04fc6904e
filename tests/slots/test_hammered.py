"""Eight processes at one pool at once: as if all had waited for each other, and no slot was ever held twice."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.slots import hammer
from tests.slots.invariants import POOL, check
from tests.slots.model import Model
from workers.slots.slot_map import SlotMap

PROCESSES = 8
STEPS = 700

Step = tuple[int, float, str, tuple[Any, ...], Any]


@pytest.fixture(scope="module")
def server(valkey_url: str) -> Iterator[redis.Redis]:
    """The hammered server, as the processes left it."""
    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()
        yield client


@pytest.fixture(scope="module")
def journal(server: redis.Redis, valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> list[Step]:
    """All steps of all processes, in the order in which the server did them."""
    directory = tmp_path_factory.mktemp("journals")
    journals = [directory / f"{number}.pickle" for number in range(PROCESSES)]
    children = [
        subprocess.Popen([sys.executable, hammer.__file__, valkey_url, str(number), str(STEPS), path])
        for number, path in enumerate(journals)
    ]
    assert [child.wait(timeout=100) for child in children] == [0] * PROCESSES
    steps = [step for path in journals for step in pickle.loads(path.read_bytes())]
    return sorted(steps, key=lambda step: step[0])


def test_eight_processes_at_once_are_as_if_one_had_waited_for_the_other(
    journal: list[Step], server: redis.Redis
) -> None:
    model = Model()
    for _, model.now, verb, arguments, reply in journal:
        assert getattr(model, verb)(*arguments) == reply

    slots = SlotMap(server, POOL)
    assert slots.snapshot() == model.snapshot()
    check(server, slots)
    for lease in list(model.leases.values()):
        assert slots.release(lease.run, lease.token)
    assert slots.stats().used == 0


def test_no_slot_is_held_twice_and_no_token_redeemed_twice(journal: list[Step]) -> None:
    """Said without the model: who is given a slot, finds it empty."""
    holders: dict[tuple[str, int], str] = {}
    redeemed: set[str] = set()
    for _, _, verb, arguments, reply in journal:
        if verb == "acquire" and reply and reply.token == arguments[2]:
            place = (reply.agent, reply.slot)
            assert place not in holders
            assert reply.run not in holders.values()
            holders[place] = reply.run
        if (verb == "release" and reply) or verb == "deregister":
            holders = {place: run for place, run in holders.items() if arguments[0] not in (run, place[0])}
        if verb == "redeem" and reply:
            assert arguments[2] not in redeemed
            redeemed.add(arguments[2])
    assert len(redeemed) > PROCESSES
