"""Eight auto-applied runs at once meet a local pool with one agent and a maximum of three.

The look that a run without a slot asks for adds both further agents at once; until they are ready, the one that is
there takes run after run. An apply takes half a second: one agent alone would need six.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from bench.rows import Row, at_most, share
from bench.system import create_workspace, enqueue, eventually, state
from workers.core.lifecycle import RunStatus
from workers.core.pools import PoolLimits
from workers.protocol.kinds import RunKind
from workers.services.pools import manage
from workers.services.runs import views
from workers.services.system import System
from workers.specs.pools import PoolSpec

ROUNDS = 3
RUNS = 8
LONGEST = 120.0
AGENTS = 3
_CONFIGURATION = 'resource "terraform_data" "it" {\n  provisioner "local-exec" {\n    command = "sleep 0.5"\n  }\n}\n'


def rows(system: System, directory: Path, effort: float) -> list[Row]:
    code = directory / "burst"
    code.mkdir()
    (code / "main.tf").write_text(_CONFIGURATION)
    last, ready = zip(*(_burst(system, f"burst{number}", code) for number in range(share(effort, ROUNDS))), strict=True)
    return [
        Row("eight applies at once on one of three local agents: both others are ready", statistics.median(ready), "s"),
        at_most("the same: until the last has a slot", statistics.median(last), 3, "s"),
    ]


def _burst(system: System, pool: str, code: Path) -> tuple[float, float]:
    """Return after how many seconds the last of the runs had a slot, and all agents were ready."""
    manage.ensure(system, PoolSpec(name=pool, limits=PoolLimits(min_agents=1, max_agents=AGENTS)))
    workspaces = [create_workspace(system, f"{pool}-{number}", code, pool=pool) for number in range(RUNS)]
    eventually(lambda: system.slots(pool).stats().available == 1)
    began, last, ready = time.perf_counter(), 0.0, 0.0
    runs = [enqueue(system, RunKind.PLAN_AND_APPLY, workspace, auto_apply=True) for workspace in workspaces]
    while not (last and ready):
        time.sleep(0.02)
        now = time.perf_counter() - began
        if now > LONGEST:
            raise TimeoutError(f"{pool} has no {AGENTS} agents, or not all runs have a slot")
        if not ready and system.slots(pool).stats().available == AGENTS:
            ready = now
        if not last and all(_has_started(system, run) for run in runs):
            last = now
    eventually(lambda: all(state(system, run) == "SUCCESS" for run in runs))
    return last, ready


def _has_started(system: System, run: str) -> bool:
    found = views.by_id(system.database, run)
    return found is not None and found.status is not RunStatus.PENDING
