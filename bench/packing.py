"""How many of 100 pods stay fully idle at 40 % load, so that they could be removed: by the slot map, and by chance.

Runs arrive and end at random; a third are plan_and_apply, as one slot in three can take them. The ideal moves every
run at every moment to the fewest pods that can hold them.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import redis

from bench.rows import Row, at_least, share
from workers.protocol.kinds import RunKind
from workers.slots.slot_map import SlotMap

PODS = 100
LOAD = 0.4 * 3 * PODS
EVENTS = 8_000
WARM_UP = 0.25
SEED = 7

Choose = Callable[[str, RunKind], str | None]
Leave = Callable[[str], None]


def measure(url: str, effort: float = 1.0) -> list[Row]:
    events = share(effort, EVENTS, least=100)
    with redis.Redis.from_url(url) as client:
        ours, ideal = _idle_pods(*_by_slot_map(client), events)
    chance, _ = _idle_pods(*_by_chance(), events)
    return [
        Row(f"pods that need not be there, of {PODS} at 40 % load", ideal, "pods"),
        at_least("fully idle pods by the slot map, of those", 100 * ours / ideal, 90, "%"),
        Row("fully idle pods by random choice, of those", 100 * chance / ideal, "%"),
    ]


def _by_slot_map(client: redis.Redis) -> tuple[Choose, Leave]:
    slots = SlotMap(client, "packed")
    for number in range(PODS):
        slots.register(f"agent-{number:03}", "life")

    def choose(run: str, kind: RunKind) -> str | None:
        lease = slots.acquire(run, kind, "token")
        return lease and lease.agent

    return choose, lambda run: bool(slots.release(run, "token")) and None


def _by_chance() -> tuple[Choose, Leave]:
    chance = random.Random(SEED)
    free = {(f"agent-{pod:03}", slot) for pod in range(PODS) for slot in range(3)}
    held: dict[str, tuple[str, int]] = {}

    def choose(run: str, kind: RunKind) -> str | None:
        suitable = sorted(place for place in free if kind is RunKind.PLAN or place[1] == 0)
        if not suitable:
            return None
        held[run] = chance.choice(suitable)
        free.remove(held[run])
        return held[run][0]

    return choose, lambda run: free.add(held.pop(run))


@dataclass
class _Pool:
    """What runs where at one moment."""

    kinds: dict[str, RunKind] = field(default_factory=dict)
    pods: dict[str, str] = field(default_factory=dict)

    def idle(self) -> int:
        return PODS - len(set(self.pods.values()))

    def ideally_idle(self) -> int:
        applies = Counter(self.kinds.values())[RunKind.PLAN_AND_APPLY]
        return PODS - max(applies, math.ceil(len(self.kinds) / 3))


def _idle_pods(choose: Choose, leave: Leave, events: int) -> tuple[float, float]:
    """Let runs come and go; return how many pods were idle on average, and how many could have been."""
    chance, pool, now = random.Random(SEED), _Pool(), 0.0
    ends: list[tuple[float, str]] = []
    seen = []
    for number in range(events):
        arrival = now + chance.expovariate(LOAD)
        if ends and ends[0][0] < arrival:
            now, run = heapq.heappop(ends)
            leave(run)
            del pool.kinds[run], pool.pods[run]
        else:
            now, run = arrival, f"run-{number}"
            kind = RunKind.PLAN if chance.random() < 2 / 3 else RunKind.PLAN_AND_APPLY
            if pod := choose(run, kind):
                pool.kinds[run], pool.pods[run] = kind, pod
                heapq.heappush(ends, (now + chance.expovariate(1), run))
        if number >= events * WARM_UP:
            seen.append((pool.idle(), pool.ideally_idle()))
    idle, ideal = zip(*seen, strict=True)
    return sum(idle) / len(seen), sum(ideal) / len(seen)
