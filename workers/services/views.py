"""What people look at: runs, pools, slots and logs, as plain values. Nothing here changes anything.

The fields of these values are what ``--json`` and the dashboard's JSON print, so their names stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from workers.core.pools import PoolLimits, PoolSpec
from workers.core.runs import RunKind, RunStatus
from workers.core.slots import AgentRecord, PoolStats
from workers.services.system import System
from workers.slots.log_stream import LogLine, RunLog
from workers.store import decisions, pools, runs, workspaces
from workers.store.models import Run, RunEventRecord, ScalingDecision

DECISIONS_SHOWN = 10
WAITING_SHOWN = 20


@dataclass(frozen=True, slots=True)
class RunView:
    """One run. Counts in ``changes`` are None before it was planned."""

    run_id: str
    workspace: str
    pool: str
    kind: RunKind
    status: RunStatus
    priority: int
    auto_apply: bool
    destroy: bool
    changes: dict[str, int | None]
    outputs: dict[str, Any]
    agent: str | None
    slot: int | None
    attempt: int
    commit: str | None
    reason: str | None
    error: str | None
    cancel_requested: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    confirm_until: datetime | None


@dataclass(frozen=True, slots=True)
class EventView:
    """Something that happened to a run; ``status`` is the one it had from then on."""

    at: datetime
    event: str
    status: RunStatus
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class DecisionView:
    """What was decided about a pool's size, why, and from which facts."""

    at: datetime
    current: int
    desired: int
    reason: str
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SlotView:
    """One slot. ``since``: in this state, in seconds since the epoch; None while it is idle."""

    slot: int
    state: str
    run_id: str | None = None
    workspace: str | None = None
    kind: RunKind | None = None
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True, slots=True)
class AgentView:
    """One agent and its three slots. ``state``: available, draining or silent. Times are seconds since the epoch."""

    name: str
    state: str
    registered_at: float
    heartbeat_at: float
    slots: tuple[SlotView, ...]


@dataclass(frozen=True, slots=True)
class SlotCounts:
    """Slots of one pool by state, and how many could be given to a run now, by kind."""

    total: int
    running: int
    reserved: int
    idle: int
    free_plan: int
    free_plan_and_apply: int


@dataclass(frozen=True, slots=True)
class PoolView:
    """One pool: limits, agents, slots, what waits, and the sentence that says what keeps it from what it wants."""

    name: str
    type: str
    limits: dict[str, Any]
    timeouts: dict[str, Any]
    slots: SlotCounts
    agents: tuple[AgentView, ...]
    pending: dict[str, int]
    waiting: tuple[RunView, ...]
    status_message: str | None
    decisions: tuple[DecisionView, ...]


def recent_runs(
    system: System,
    *,
    workspace: str | None = None,
    pool: str | None = None,
    statuses: frozenset[RunStatus] | None = None,
    limit: int = 50,
) -> list[RunView]:
    """Return the latest runs, newest first. Raises :class:`UnknownWorkspace` or :class:`UnknownPool`."""
    with system.database.read() as session:
        if workspace is not None:
            workspaces.get(session, workspace)
        if pool is not None:
            pools.get(session, pool)
        found = runs.recent(session, workspace=workspace, pool=pool, statuses=statuses, limit=limit)
    return [run_view(run) for run in found]
