"""What a slot costs: against nothing at all, as the pool grows, and against the alternatives.

Everything is a ratio within one run on one machine. Compared sides alternate in short blocks, and the median of the
blocks' ratios counts, so that other load on the machine affects both alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import redis

from bench import contention, packing
from bench.rows import Row, at_most, share, table
from tests.valkey_server import running_valkey
from workers.protocol.kinds import RunKind
from workers.slots.slot_map import SlotMap

SIZES = (10, 1_000, 10_000)
ROUNDS, PAIRS = 60, 40
SERVER_BATCHES = 20
TOKEN = "0123456789abcdef0123456789abcdef"

Pair = Callable[[], None]


def measure(effort: float = 1.0) -> list[Row]:
    with running_valkey() as url:
        return [*_cost(url, effort), *contention.measure(url, effort), *packing.measure(url, effort)]


def _cost(url: str, effort: float) -> list[Row]:
    sizes = [share(effort, pods, least=10) for pods in SIZES]
    with redis.Redis.from_url(url) as client:
        trivial = _trivial(client)
        pairs = [_pair(client, f"pool-{n}", pods) for n, pods in enumerate(sizes)]
        rounds = [[_seconds(pair) for pair in (trivial, *pairs)] for _ in range(share(effort, ROUNDS))]
        server = _server_microseconds(client, pairs[-1])
    bare, few, some, many = ([costs[side] for costs in rounds] for side in range(4))
    return [
        Row("two trivial EVALSHA calls", 1e6 * statistics.median(bare), "us"),
        *(
            at_most(f"acquire + release, {pods:,} pods, against them", _ratio(side, bare), 1.2, "times")
            for pods, side in zip(sizes, (few, some, many), strict=True)
        ),
        at_most("acquire + release, 10,000 pods against 10", _ratio(many, few), 1.3, "times"),
        at_most("server time a step, 10,000 pods, least disturbed batch", server, 20, "us"),
    ]


def _trivial(client: redis.Redis) -> Pair:
    digest = client.script_load("return 1")

    def pair() -> None:
        client.evalsha(digest, 0)
        client.evalsha(digest, 0)

    return pair


def _pair(client: redis.Redis, pool: str, pods: int) -> Pair:
    """A pool at 40 % load, where a plan and a plan_and_apply alternate."""
    slots = SlotMap(client, pool)
    contention.register(client, slots, pool, pods)
    for number in range(pods * 3 * 4 // 10):
        slots.acquire(f"run-{number}", RunKind.PLAN if number % 3 else RunKind.PLAN_AND_APPLY, TOKEN)
    kinds = [RunKind.PLAN, RunKind.PLAN_AND_APPLY]

    def pair() -> None:
        kinds.reverse()
        lease = slots.acquire("run", kinds[0], TOKEN)
        assert lease is not None
        slots.release("run", TOKEN)

    return pair


def _seconds(pair: Pair) -> float:
    start = time.perf_counter()
    for _ in range(PAIRS):
        pair()
    return (time.perf_counter() - start) / PAIRS


def _ratio(side: list[float], base: list[float]) -> float:
    return statistics.median(cost / bare for cost, bare in zip(side, base, strict=True))


def _server_microseconds(client: redis.Redis, pair: Pair) -> float:
    batches = []
    for _ in range(SERVER_BATCHES):
        client.config_resetstat()
        _seconds(pair)
        batches.append(client.info("commandstats")["cmdstat_evalsha"]["usec_per_call"])
    return min(batches)


if __name__ == "__main__":
    print(table(measure()))
