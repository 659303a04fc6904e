"""Pools, agents and slots as the CLI and the dashboard show them: plain values, read only.

Their fields are what ``--json`` and the dashboard's JSON print, so that names and meanings stay. A pool that can't be
read is shown as that, and keeps no other from being shown.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from workers.core.errors import UnknownPool
from workers.core.pools import PoolLimits, PoolTimeouts
from workers.protocol.errors import Damaged
from workers.protocol.kinds import RunKind
from workers.protocol.leases import SLOTS_PER_AGENT, AgentRecord, Lease, PoolStats, SlotState
from workers.services.errors import explained, is_outage
from workers.services.runs.views import RunView, shown, view
from workers.services.system import System
from workers.specs.pools import PoolSpec
from workers.store import decisions, pools, runs
from workers.store.database import Session
from workers.store.models import Run

DECISIONS_SHOWN = 10
WAITING_SHOWN = 20
# A pool's configuration, the runs that hold its slots, and the fields of its view that the database knows.
_Stored = tuple[PoolSpec, Mapping[str, Run], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class SlotView:
    """One slot. ``since``: when the run took it; ``until``: when its reservation ends."""

    slot: int
    state: SlotState
    run_id: str | None = None
    workspace: str | None = None
    kind: RunKind | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class AgentView:
    """One agent and its three slots. ``state``: available, draining or silent."""

    name: str
    state: str
    registered_at: datetime
    heartbeat_at: datetime
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
class DecisionView:
    """What was decided about a pool's size, why, and from which facts: a :class:`PoolFacts` as it was stored."""

    at: datetime
    current: int
    desired: int
    reason: str
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class PoolView:
    """One pool: limits, agents, slots, what waits, and what keeps it from its desired state.

    ``pending`` counts by kind the runs that lack nothing but a slot, ``waiting`` shows the first of them; ``runs``
    counts by status those that hold a slot. Of a pool that can't be read the ``type`` is ``unreadable``, and its limits
    and timeouts are unknown: None.
    """

    name: str
    type: str
    limits: dict[str, Any]
    timeouts: dict[str, Any]
    attempts: int
    draining: bool
    deployment: str | None
    adopting: bool
    sensitive: tuple[str, ...]
    slots: SlotCounts
    agents: tuple[AgentView, ...]
    pending: dict[str, int]
    runs: dict[str, int]
    waiting: tuple[RunView, ...]
    status_message: str | None
    decisions: tuple[DecisionView, ...]


def one(system: System, name: str) -> PoolView:
    """Return a pool as it is now. Raises :class:`UnknownPool` or :class:`Unreadable`."""
    # One transaction, which ends before the slot map is read.
    with system.database.read() as session:
        stored = _stored(session, name)
    return _view(system, *stored)


def every(system: System) -> list[PoolView]:
    """Return all pools as they are now, by name."""
    found = (_shown(system, name) for name in system.pool_names())
    return [pool for pool in found if pool is not None]


def _shown(system: System, name: str) -> PoolView | None:
    try:
        return one(system, name)
    except UnknownPool:
        return None  # it was deleted just now
    except Exception as error:
        if is_outage(error):
            raise
        return _unreadable(name, explained(error))


def _stored(session: Session, name: str) -> _Stored:
    spec = pools.get(session, name)
    return spec, {run.id: run for run in runs.holding(session, name)}, _fields(session, name)


def _unreadable(name: str, why: str) -> PoolView:
    return shown(
        PoolView,
        PoolSpec(name=name),
        type="unreadable",
        limits=dict.fromkeys(PoolLimits.model_fields),
        timeouts=dict.fromkeys(PoolTimeouts.model_fields),
        slots=SlotCounts(0, 0, 0, 0, 0, 0),
        agents=(),
        pending=dict.fromkeys(map(str, RunKind), 0),
        runs={},
        waiting=(),
        status_message=why,
        decisions=(),
    )


def _fields(session: Session, pool: str) -> dict[str, Any]:
    plans, applies = runs.pending_counts(session, pool)
    return {
        "pending": {RunKind.PLAN.value: plans, RunKind.PLAN_AND_APPLY.value: applies},
        "waiting": tuple(view(run) for run in runs.runnable(session, pool, tuple(RunKind), WAITING_SHOWN)),
        "status_message": pools.status(session, pool),
        "decisions": tuple(shown(DecisionView, each) for each in decisions.recent(session, pool, DECISIONS_SHOWN)),
    }


def _view(system: System, spec: PoolSpec, holding: Mapping[str, Run], stored: dict[str, Any]) -> PoolView:
    slots = system.slots(spec.name)
    try:
        stats, agents = slots.stats(), slots.snapshot()
    except Damaged as error:  # the next cycle removes what no verb writes
        stats, agents = PoolStats(0, 0, 0, 0, 0, 0), []
        stored |= {"status_message": str(error)}
    return shown(
        PoolView,
        spec,
        limits=spec.limits.model_dump(),
        timeouts=spec.timeouts.model_dump(),
        slots=shown(SlotCounts, stats, free_plan_and_apply=stats.free_apply),
        agents=tuple(_agent(record, holding) for record in agents),
        runs=dict(Counter(run.status.value for run in holding.values())),
        **stored,
    )


def _agent(record: AgentRecord, holding: Mapping[str, Run]) -> AgentView:
    held = {lease.slot: lease for lease in record.leases}
    return AgentView(
        name=record.name,
        state="silent" if record.silent else "draining" if record.draining else "available",
        registered_at=_time(record.registered_at),
        heartbeat_at=_time(record.heartbeat_at),
        slots=tuple(_slot(slot, held.get(slot), holding) for slot in range(SLOTS_PER_AGENT)),
    )


def _slot(slot: int, lease: Lease | None, holding: Mapping[str, Run]) -> SlotView:
    if lease is None:
        return SlotView(slot, SlotState.IDLE)
    return shown(
        SlotView,
        lease,
        run_id=lease.run,
        workspace=holding[lease.run].workspace if lease.run in holding else None,
        since=_time(lease.since),
        until=None if lease.until is None else _time(lease.until),
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
