"""Why a pool has as many agents as it has and not more, in one line, told from facts. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime

from workers.core.pools import PoolLimits
from workers.core.scaling import back_off_until
from workers.core.waiting import PoolSituation, agents, free_for
from workers.protocol.kinds import RunKind


def size_reason(
    pool: PoolSituation,
    limits: PoolLimits,
    waiting: Mapping[RunKind, int],
    failures: tuple[float, ...],
    now: datetime,
    *,
    deployment: str | None = None,
) -> str:
    """Return the reason that is the first to hold.

    ``waiting``: how many runs lack nothing but a slot, by kind. ``failures``: when its pods failed to start lately.
    """
    if (why := _not_scaled(pool, deployment, now)) is not None:
        return why
    short = {kind: count for kind, count in waiting.items() if count and not free_for(pool.stats, kind)}
    current = pool.stats.available + pool.starting
    if short and pool.full:
        return f"at its maximum of {agents(limits.max_agents)}, and {_runs(short)}"
    if short or current < limits.min_agents:
        return _growing(pool, short, failures, now)
    return _enough(pool, limits, current)


def _not_scaled(pool: PoolSituation, deployment: str | None, now: datetime) -> str | None:
    if deployment is not None:
        return f"the Deployment {deployment} runs its pods, and says how many there are"
    if pool.draining:
        return "it drains: its agents finish what they hold, and none is added"
    if pool.outlook is None:
        return "no cycle has looked at it yet"
    if now > pool.outlook.due:
        return "no cycle of the pool has ended lately: `terraslot doctor` says what is missing"
    return None


def _growing(pool: PoolSituation, short: Mapping[RunKind, int], failures: tuple[float, ...], now: datetime) -> str:
    """Say what keeps the pool from the agents that it needs, or that they come."""
    needed = _runs(short) if short else "it has fewer agents than its minimum"
    why = pool.outlook.blocked if pool.outlook else None
    until = back_off_until(failures, now.timestamp())
    if until > now.timestamp():
        after = f"; {why}" if why else ""
        at = datetime.fromtimestamp(until, UTC)
        return f"{needed}; pods failed to start, and the next is tried at {at:%H:%M:%S} UTC{after}"
    if why:
        return f"{needed}; {why}"
    return f"{needed}; {_starting(pool.starting)}" if pool.starting else f"{needed}; agents are added in a moment"


def _enough(pool: PoolSituation, limits: PoolLimits, current: int) -> str:
    if pool.starting:
        return f"no run lacks a slot; {_starting(pool.starting)}"
    if current == 0:
        return "no run lacks a slot, and no agent is needed"
    if current <= limits.min_agents:
        return f"no run lacks a slot, and it is at its minimum of {agents(limits.min_agents)}"
    if any(agent.idle_since is not None for agent in pool.agents):
        return f"no run lacks a slot; an agent that is idle for {limits.idle_timeout:g} s may be removed"
    return "no run lacks a slot, and no agent is idle"


def _runs(short: Mapping[RunKind, int]) -> str:
    number = sum(short.values())
    return "1 run waits for a slot" if number == 1 else f"{number} runs wait for slots"


def _starting(number: int) -> str:
    return "1 pod is starting" if number == 1 else f"{number} pods are starting"
