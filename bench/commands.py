"""What a person waits for at a terminal: ``terraslot apply --yes`` as a whole, and the processor time of a look."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.rows import Row, at_most, share
from bench.system import create_workspace, eventually
from bench.whole_run import EXAMPLE
from workers.core.pools import PoolLimits
from workers.services.pools import manage
from workers.services.system import System
from workers.specs.pools import PoolSpec

ROUNDS = 5
_PROGRAM = str(Path(sys.executable).with_name("terraslot"))


def rows(system: System, effort: float) -> list[Row]:
    empty, warm, looks = [], [], []
    for number in range(share(effort, ROUNDS)):
        pool = f"empty{number}"
        manage.ensure(system, PoolSpec(name=pool, limits=PoolLimits(min_agents=0, max_agents=1)))
        create_workspace(system, pool, EXAMPLE, pool=pool)
        empty.append(_command("apply", pool, "--yes"))
        eventually(lambda pool=pool: system.slots(pool).stats().free_apply)
        warm.append(_command("apply", pool, "--yes", "--var", f"name={pool}"))
        looks.append(_command("runs"))
    return [
        at_most("terraslot apply --yes, whole command, empty local pool", _median(empty)[0], 1.8, "s"),
        at_most("terraslot apply --yes, whole command, warm agent", _median(warm)[0], 0.8, "s"),
        Row("terraslot apply --yes, warm agent: processor time of the command", _median(warm)[1], "s"),
        at_most("terraslot runs: processor time", _median(looks)[1], 0.45, "s"),
    ]


def _command(*arguments: str) -> tuple[float, float]:
    """Return how long a command took, and its processor time."""
    before, began = _processor_seconds(), time.perf_counter()
    subprocess.run([_PROGRAM, *arguments], env=os.environ | {"COLUMNS": "100"}, check=True, stdout=subprocess.PIPE)
    return time.perf_counter() - began, _processor_seconds() - before


def _processor_seconds() -> float:
    """Return the processor time of the children that this process has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _median(found: list[tuple[float, float]]) -> tuple[float, float]:
    whole, processor = zip(*found, strict=True)
    return statistics.median(whole), statistics.median(processor)
