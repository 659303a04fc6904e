"""What an idle agent and an embedded system at rest take up.

RSS counts a page that is shared once for each process, PSS in parts: the sum of PSS is what a machine has less of.
"""

from __future__ import annotations

import time

import psutil

from bench.rows import Row, at_most
from bench.system import POOL
from workers.embedded import state
from workers.services.system import System

SETTLE = 3.0


def rows(system: System, effort: float) -> list[Row]:
    """Measure a system that has been left alone; it has one agent, which has executed nothing."""
    time.sleep(SETTLE * effort)
    owner = state.supervisor(system.settings.home)
    assert owner
    root = psutil.Process(owner.pid)
    agents, control_plane = [], [root]
    for process in root.children(recursive=True):
        of_agent = process.environ().get("TERRASLOT_AGENT", "").startswith(f"{POOL}-")
        (agents if of_agent else control_plane).append(process)
    rss, pss = _megabytes(control_plane)
    _, pod = _megabytes(agents)
    worker = max(_megabytes([process])[0] for process in agents)
    return [
        at_most("an idle agent's worker, RSS", worker, 58, "MB"),
        Row("all processes of that agent, PSS", pod, "MB"),
        at_most(f"an embedded system at rest, {len(control_plane)} processes, PSS", pss, 400, "MB"),
        Row("the same, RSS, which counts what they share once for each", rss, "MB"),
    ]


def _megabytes(processes: list[psutil.Process]) -> tuple[float, float]:
    used = [process.memory_full_info() for process in processes]
    return sum(each.rss for each in used) / 1e6, sum(getattr(each, "pss", each.rss) for each in used) / 1e6
