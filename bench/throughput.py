"""Runs a second from enqueueing to the delivered result, with agents that do nothing, on SQLite and PostgreSQL.

Beside it, in the same run, plain Celery passing a message on to a second task: the least that any two hops cost.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from celery.result import AsyncResult

from bench import plain
from bench.idle_agents import AGENTS
from bench.pipe import Pipe, listening
from bench.rows import Row, at_least, share, table
from bench.system import POOL, create_workspace, embedded, enqueue, eventually, postgresql, worker
from workers.core.pools import PoolLimits
from workers.protocol.kinds import RunKind
from workers.services.system import System
from workers.specs.pools import PoolSpec

RUNS = 900
PARTS = 3
POOL_OF_OTHERS = PoolSpec(name=POOL, limits=PoolLimits(min_agents=0, max_agents=1))
# No cycle runs meanwhile: these agents have no pods.
QUIET = {"cycle_seconds": 3600.0, "dispatch_seconds": 3600.0}


def measure(effort: float = 1.0) -> list[Row]:
    """Measure both databases."""
    rows = _measure("SQLite", share(effort, RUNS), 110)
    with postgresql() as url:
        return rows + _measure("PostgreSQL", share(effort, RUNS), 100, database_url=url)


def _measure(database: str, count: int, target: float, **facts: str) -> list[Row]:
    with (
        tempfile.TemporaryDirectory(prefix="terraslot-bench-") as directory,
        listening() as pipe,
        embedded(POOL_OF_OTHERS, **QUIET, **facts) as system,
        worker("bench.plain", "plain@bench"),
        worker("bench.idle_agents", "idle@bench"),
    ):
        code = Path(directory, "code")
        code.mkdir()
        (code / "main.tf").write_text('output "nothing" { value = "" }\n')
        create_workspace(system, "measured", code)
        eventually(lambda: system.slots(POOL).stats().available == len(AGENTS))
        _runs(system, min(count, 20))
        _hops(system, pipe, min(count, 20))
        # By turns, so that other load on the machine affects both alike.
        found = [(_runs(system, part), _hops(system, pipe, part)) for part in _parts(count)]
        ours, theirs = (statistics.median(side) for side in zip(*found, strict=True))
        ratio = statistics.median(run / hop for run, hop in found)
        return [
            at_least(f"runs a second, {database}", ours, target, "1/s"),
            Row(f"plain Celery, two hops, beside {database}", theirs, "1/s"),
            at_least(f"runs a second against plain Celery's two hops, {database}", ratio, 0.28, "times"),
        ]


def _parts(count: int) -> list[int]:
    return [share(1 / PARTS, count)] * PARTS


def _runs(system: System, count: int) -> float:
    began = time.perf_counter()
    enqueued = [enqueue(system, RunKind.PLAN, "measured") for _ in range(count)]
    for run in enqueued:
        AsyncResult(run, app=system.celery).get(timeout=120)
    return count / (time.perf_counter() - began)


def _hops(system: System, pipe: Pipe, count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        plain.send(system.celery, plain.FIRST_HOP)
    return count / (pipe.wait_for(count) - began)


if __name__ == "__main__":
    print(table(measure()))
