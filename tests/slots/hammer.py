"""One of the processes that hammer a pool: does random things for a while, and writes down what was answered.

Each step is sent in one transaction with a counter, so that its number is its place in the order in which the
server did all steps of all processes.

Usage: hammer.py URL SEED STEPS JOURNAL
"""

from __future__ import annotations

import pickle
import random
import sys
import time
from pathlib import Path
from typing import Any

import redis

from workers.protocol.kinds import RunKind
from workers.protocol.leases import CancelMode, Lease
from workers.slots.slot_map import SlotMap

POOL = "pool"
AGENTS = [f"agent-{number}" for number in range(5)]
RUNS = [f"run-{number}" for number in range(30)]


class Numbered:
    """A client whose every command is numbered by the server, in the order of their execution."""

    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(url)
        self.number = 0

    def execute_command(self, *words: Any) -> Any:
        with self.client.pipeline(transaction=True) as pipe:
            reply, self.number = pipe.execute_command(*words).incr("steps").execute()
        return reply


class Worker:
    """Does steps, and remembers the leases that it saw: its own, and others' that have gone stale meanwhile."""

    def __init__(self, url: str, seed: int) -> None:
        self.random = random.Random(seed)
        self.client = Numbered(url)
        self.now = time.time()
        self.slots = SlotMap(self.client, POOL, clock=lambda: self.now)  # type: ignore[arg-type]
        self.seen: list[Lease] = []
        self.journal: list[tuple[int, float, str, tuple[Any, ...], Any]] = []

    def step(self) -> None:
        verb, arguments = self.random.choices(*zip(*self._steps(), strict=True))[0]
        self.now = time.time()
        reply = getattr(self.slots, verb)(*arguments)
        self.journal.append((self.client.number, self.now, verb, arguments, reply))
        self.seen = [*self.seen, *([reply] if isinstance(reply, Lease) else [])][-6:]

    def _steps(self) -> list[tuple[tuple[str, tuple[Any, ...]], int]]:
        chance = self.random
        agent, run, claim = chance.choice(AGENTS), chance.choice(RUNS), chance.choice(["mine", "theirs"])
        lease = chance.choice(self.seen) if self.seen else Lease(run, RunKind.PLAN, agent, 1, "none", "idle", 0)
        fresh = f"{chance.getrandbits(64):x}"
        of_the_lease = [
            (("redeem", (lease.agent, lease.run, lease.token)), 20),
            (("release", (lease.run, lease.token)), 20),
            (("reserve", (lease.run, lease.token, self.now + 60)), 10),
            (("resume", (lease.run, lease.token, fresh)), 5),
            (("revoke", (lease.run, lease.token)), 2),
            (("cancel", (lease.run, chance.choice(list(CancelMode)))), 3),
        ]
        return [
            *of_the_lease,
            (("acquire", (run, chance.choice(list(RunKind)), fresh)), 30),
            (("register", (agent, "life")), 5),
            (("heartbeat", (agent, "life", [lease.token], [])), 5),
            (("claim_idle", (1, claim, chance.choice([None, AGENTS]))), 2),
            (("take_over", (agent, claim, chance.choice(["mine", "theirs"]))), 2),
            (("give_back", (agent, claim)), 12),
            (("drain", (agent,)), 1),
            (("undrain", (agent,)), 6),
            (("deregister", (agent,)), 1),
        ]


def main() -> None:
    url, seed, steps, journal = sys.argv[1:]
    worker = Worker(url, int(seed))
    for _ in range(int(steps)):
        worker.step()
    Path(journal).write_bytes(pickle.dumps(worker.journal))


if __name__ == "__main__":
    main()
