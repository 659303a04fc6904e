"""A simulated day of a pool, scaled by the product's own decision function, beside the founding arithmetic.

The founding arithmetic is the utilisation of all slots, (running + reserved) / slots.

Poisson arrivals; plans take 60 s, applies 180 s, a plan is confirmed after 30 minutes (all exponential); pods start in
45 s; at most 30 pods; a tick every 30 s, and a look within moments of a run that found no slot, once a second at most.
Slots are given as the slot map gives them: plans prefer plan-only slots, the busiest agent first. Beside it the same
decisions at ticks alone, one agent at a time, which what the looks cost is compared with.
"""

from __future__ import annotations

import heapq
import random
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.rows import Row, at_most, share, table
from workers.core.pools import PoolLimits
from workers.core.scaling import PoolFacts, decide

DAY = 86_400.0
TICK = 30.0
POD_START = 45.0
GATHER = 0.2
LOOK_AGAIN_AFTER = 1.0
PLAN, APPLY, THOUGHT = 60.0, 180.0, 1800.0
LIMITS = PoolLimits(min_agents=0, max_agents=30)
CAREFUL = PoolLimits(min_agents=0, max_agents=30, step=1)
LOADS = ((20, 3), (10, 20), (600, 6), (300, 30))

Decide = Callable[[PoolFacts, float], int]


@dataclass(eq=False)
class Agent:
    slots: list[str | None] = field(default_factory=lambda: [None, None, None])
    idle_since: float | None = 0.0

    @property
    def busy(self) -> int:
        return sum(slot is not None for slot in self.slots)


@dataclass
class Day:
    """One simulated day. ``waits`` are seconds by kind; ``pod_hours`` counts pods from creation to removal."""

    decide: Decide
    plans_an_hour: float
    applies_an_hour: float
    random: random.Random
    now: float = 0.0
    pod_seconds: float = 0.0
    starting: int = 0
    agents: list[Agent] = field(default_factory=list)
    events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    waiting: dict[str, deque[float]] = field(default_factory=lambda: {"plan": deque(), "apply": deque()})
    waits: dict[str, list[float]] = field(default_factory=lambda: {"plan": [], "apply": []})
    count: int = 0
    looks: bool = False
    asked: bool = False
    looked_at: float = -LOOK_AGAIN_AFTER

    def at(self, delay: float, what: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.events, (self.now + delay, self.count, what))

    def run(self) -> Day:
        for kind, rate in (("plan", self.plans_an_hour), ("apply", self.applies_an_hour)):
            self.at(self.random.expovariate(rate / 3600), lambda kind=kind, rate=rate: self.arrive(kind, rate))
        self.at(TICK, self.tick)
        while self.events and self.events[0][0] <= DAY:
            moment, _, what = heapq.heappop(self.events)
            self.pod_seconds += (moment - self.now) * (len(self.agents) + self.starting)
            self.now = moment
            what()
        return self

    def arrive(self, kind: str, rate: float) -> None:
        self.waiting[kind].append(self.now)
        self.assign()
        self.ask(kind)
        self.at(self.random.expovariate(rate / 3600), lambda: self.arrive(kind, rate))

    def ask(self, kind: str) -> None:
        """Ask for a look where a run found no slot."""
        if self.looks and self.waiting[kind] and not self.asked:
            self.asked = True
            self.at(max(0.0, self.looked_at + LOOK_AGAIN_AFTER - self.now) + GATHER, self.look)

    def look(self) -> None:
        self.asked, self.looked_at = False, self.now
        if self.decide(self.facts(), self.now) > len(self.agents) + self.starting:
            self.scale()

    def assign(self) -> None:
        while (queue := self._oldest()) is not None:
            kind, agent, slot = queue
            self.waits[kind].append(self.now - self.waiting[kind].popleft())
            agent.slots[slot], agent.idle_since = "running", None
            plan = self.random.expovariate(1 / PLAN)
            if kind == "plan":
                self.at(plan, lambda agent=agent, slot=slot: self.free(agent, slot))
            else:
                self.at(plan, lambda agent=agent: self.reserve(agent))

    def _oldest(self) -> tuple[str, Agent, int] | None:
        for _, kind in sorted((queue[0], kind) for kind, queue in self.waiting.items() if queue):
            for slots in ((1, 2), (0,)) if kind == "plan" else ((0,),):
                free = [agent for agent in self.agents if any(agent.slots[slot] is None for slot in slots)]
                if free:
                    agent = max(free, key=lambda agent: agent.busy)
                    return kind, agent, next(slot for slot in slots if agent.slots[slot] is None)
        return None

    def reserve(self, agent: Agent) -> None:
        agent.slots[0] = "reserved"
        apply = self.random.expovariate(1 / THOUGHT), self.random.expovariate(1 / APPLY)
        self.at(apply[0], lambda: agent.slots.__setitem__(0, "running"))
        self.at(sum(apply), lambda: self.free(agent, 0))

    def free(self, agent: Agent, slot: int) -> None:
        agent.slots[slot] = None
        agent.idle_since = None if agent.busy else self.now
        self.assign()

    def register(self) -> None:
        self.starting -= 1
        self.agents.append(Agent(idle_since=self.now))
        self.assign()

    def facts(self) -> PoolFacts:
        slots = [slot for agent in self.agents for slot in agent.slots]
        return PoolFacts(
            ready=len(self.agents),
            starting=self.starting,
            free_apply=sum(agent.slots[0] is None for agent in self.agents),
            free_plan_only=sum(agent.slots[slot] is None for agent in self.agents for slot in (1, 2)),
            used=sum(slot is not None for slot in slots),
            reserved=slots.count("reserved"),
            pending_plans=len(self.waiting["plan"]),
            pending_applies=len(self.waiting["apply"]),
            idle_since=tuple(agent.idle_since for agent in self.agents if agent.idle_since is not None),
        )

    def tick(self) -> None:
        self.scale()
        self.at(TICK, self.tick)

    def scale(self) -> None:
        facts = self.facts()
        desired = self.decide(facts, self.now)
        for _ in range(desired - facts.current):
            self.starting += 1
            self.at(POD_START, self.register)
        idle = sorted((agent for agent in self.agents if not agent.busy), key=lambda agent: agent.idle_since or 0.0)
        for agent in idle[: max(0, facts.current - desired)]:
            self.agents.remove(agent)


def product(facts: PoolFacts, now: float) -> int:
    return decide(facts, LIMITS, now).desired


def at_ticks(facts: PoolFacts, now: float) -> int:
    return decide(facts, CAREFUL, now).desired


def founding(facts: PoolFacts, now: float) -> int:  # noqa: ARG001 - the founding arithmetic knows no time
    """The arithmetic of the requirements, which does not count starting pods."""
    total = facts.ready * 3
    if not total:
        return facts.current + (1 if facts.pending_plans + facts.pending_applies and not facts.starting else 0)
    utilisation = facts.used / total
    if utilisation > 0.8:
        return min(facts.current + 1, LIMITS.max_agents)
    if utilisation < 0.2 and facts.used == 0 and facts.ready > LIMITS.min_agents:
        return facts.current - 1
    return facts.current


def day(
    decide: Decide, load: tuple[float, float], seeds: int = 5, *, looks: bool = False
) -> tuple[float, float, float, float, float]:
    """Return mean and 95th percentile of the wait of plans and applies pooled over ``seeds`` days, and pod-hours."""
    days = [Day(decide, *load, random.Random(seed), looks=looks).run() for seed in range(seeds)]
    result = []
    for kind in ("plan", "apply"):
        # Runs that still wait at midnight count: a policy must not look good by never serving them.
        waits = [wait for one in days for wait in [*one.waits[kind], *(DAY - since for since in one.waiting[kind])]]
        result += [statistics.mean(waits), statistics.quantiles(waits, n=20)[18]]
    hours = statistics.mean(one.pod_seconds for one in days) / 3600
    return (*result, hours)


# What a prototype of the same rules reached: mean and 95th percentile of an apply's wait, and pod-hours.
PROTOTYPE = {(20, 3): (31, 77, 54), (10, 20): (22, 71, 319), (600, 6): (1, 1, 195), (300, 30): (18, 70, 462)}
NOISE = 1.05  # the spread of the same policy over other seeds
SEEDS = 25


def measure(effort: float = 1.0) -> list[Row]:
    """Return what a day of each load costs the product, and beside it the founding arithmetic."""
    rows: list[Row] = []
    seeds = share(effort, SEEDS)
    for load in LOADS:
        _, _, wait, late, hours = day(product, load, seeds, looks=True)
        before = day(at_ticks, load, seeds)[-1]
        _, _, founding_wait, _, founding_hours = day(founding, load, min(2, seeds))
        name = f"{load[0]} plans and {load[1]} applies an hour"
        for what, value, limit, unit in zip(
            ("an apply waits, mean", "95th percentile", "pods"),
            (wait, late, hours),
            PROTOTYPE[load],
            ("s", "s", "pod-hours"),
            strict=True,
        ):
            rows.append(at_most(f"{name}: {what}", value, round(limit * NOISE, 1), unit))
        rows.append(at_most(f"{name}: pods, against ticks alone", hours / before, 1.02, "times"))
        rows.append(Row(f"{name}: founding arithmetic, an apply waits", founding_wait, "s"))
        rows.append(Row(f"{name}: founding arithmetic, pods", founding_hours, "pod-hours"))
    rows.append(
        at_most("eight applies at once, one agent of three: the last pod is ready after", burst(), 1.1, "pod starts")
    )
    return rows


def burst() -> float:
    """Let eight applies meet one agent of a pool of three within a second; return when the others were ready.

    In pod starts after the first run that found no slot. They come just after a tick, which would help them late.
    """
    limits = PoolLimits(max_agents=3)
    day = Day(lambda facts, now: decide(facts, limits, now).desired, 0.0, 0.0, random.Random(1), looks=True)
    day.agents.append(Agent())

    def arrive() -> None:
        day.waiting["apply"].append(day.now)
        day.assign()
        day.ask("apply")

    for number in range(8):
        day.at(number / 8, arrive)
    ready = 0.0
    while len(day.agents) < limits.max_agents:
        day.now, _, what = heapq.heappop(day.events)
        what()
        ready = day.now
    return ready / POD_START


if __name__ == "__main__":
    print(table(measure()))
