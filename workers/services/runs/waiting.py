"""What a person who waits for a run sees: why it waits, and what terraform prints. Read only."""

from __future__ import annotations

from workers.protocol.kinds import RunKind
from workers.protocol.leases import PoolStats
from workers.services.runs.views import RunView
from workers.services.system import System
from workers.slots.log_stream import LogLine, RunLog
from workers.store import pools, runs


def log_lines(system: System, run: RunView, *, after: str = "0", block: float = 0) -> list[LogLine]:
    """Return the lines of a run's log after the one with the id ``after``.

    With ``block``, wait up to so many seconds for the first.
    """
    return RunLog(system.redis, run.pool, run.run_id).read(after, block)


def why_pending(system: System, run: RunView) -> str:
    """Say what a pending run waits for."""
    with system.database.read() as session:
        hindrance = pools.status(session, run.pool)
        its_turn = runs.get(session, run.run_id).runnable
        active = [other for other in runs.holding(session, run.pool) if other.workspace == run.workspace]
    if not its_turn:
        before = next((other for other in active if other.kind is RunKind.PLAN_AND_APPLY), None)
        which = f"run {before.id} ({before.status})" if before else "an earlier run"
        return f"waiting for {which} of the same workspace"
    lack = _lack(system.slots(run.pool).stats(), run.kind)
    return f"{lack}; {hindrance}" if hindrance else lack


def _lack(stats: PoolStats, kind: RunKind) -> str:
    if not stats.available:
        return "waiting for an agent (cold start)"
    if stats.free_plan if kind is RunKind.PLAN else stats.free_apply:
        return "waiting for the dispatcher"
    what = "slot" if kind is RunKind.PLAN else "slot that may apply"
    return f"waiting for a free {what} ({stats.used} of {stats.total} slots taken)"
