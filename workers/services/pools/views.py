"""Pools, agents and slots as the CLI and the dashboard show them: plain values, read only.

Their fields are what ``--json`` and the dashboard's JSON print, so that names and meanings stay. A pool that can't be
read is shown as that, and keeps no other from being shown.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from workers.core.errors import UnknownPool, Unreadable
from workers.core.lifecycle import RunStatus
from workers.core.pool_size import size_reason
from workers.core.pools import PoolLimits, PoolTimeouts
from workers.core.programs import PoolPrograms
from workers.core.scaling import FAILURE_WINDOW
from workers.core.waiting import Demand, PoolSituation, Standing, for_a_slot
from workers.protocol.errors import Damaged
from workers.protocol.kinds import RunKind
from workers.protocol.leases import SLOTS_PER_AGENT, AgentRecord, Lease, PoolStats, SlotState
from workers.services.errors import explained, is_outage
from workers.services.runs.views import RunView, shown, view
from workers.services.system import System
from workers.slots.slot_map import snapshots
from workers.specs.pools import PoolSpec
from workers.store import overview, pools
from workers.store.database import Session
from workers.store.models import Run, ScalingDecision
from workers.store.overview import StoredPool

DECISIONS_SHOWN = 10
WAITING_SHOWN = 20


@dataclass(frozen=True, slots=True)
class SlotView:
    """One slot. ``since``: when the run took it; ``until``: when its reservation ends; ``status``: the run's.

    ``changes``: what the plan that waits would change, or its apply changes; ``destroys``: how many resources that
    destroys.
    """

    slot: int
    state: SlotState
    run_id: str | None = None
    workspace: str | None = None
    kind: RunKind | None = None
    since: datetime | None = None
    until: datetime | None = None
    status: RunStatus | None = None
    changes: dict[str, int | None] | None = None
    destroys: int | None = None


@dataclass(frozen=True, slots=True)
class AgentView:
    """One agent and its three slots. ``state``: available, draining or silent. ``programs``: as ``terraform 1.9.8``."""

    name: str
    state: str
    registered_at: datetime
    heartbeat_at: datetime
    programs: tuple[str, ...]
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

    id: int
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
    and timeouts are unknown: None. ``terraform``: what its runs require unless their workspaces do; ``programs``: what
    its agents have, or the last ones had. ``size_reason``: why it has as many agents as it has, and not more;
    ``starting``: pods that have not registered.
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
    terraform: str | None
    programs: tuple[str, ...]
    slots: SlotCounts
    agents: tuple[AgentView, ...]
    pending: dict[str, int]
    runs: dict[str, int]
    waiting: tuple[RunView, ...]
    status_message: str | None
    size_reason: str | None
    starting: int
    decisions: tuple[DecisionView, ...]


@dataclass(frozen=True, slots=True)
class PoolSlots:
    """The slots of one pool: how many there are in which state, how many runs wait for one, and the agents."""

    pool: str
    slots: SlotCounts
    pending: dict[str, int]
    size_reason: str | None
    starting: int
    agents: tuple[AgentView, ...]


def decision(stored: ScalingDecision) -> DecisionView:
    """Return what is shown of a decision about a pool's size."""
    return shown(DecisionView, stored)


def slots(pool: PoolView) -> PoolSlots:
    """Return what is shown of a pool where nothing but its slots matters."""
    return shown(PoolSlots, pool, pool=pool.name)


def one(system: System, name: str) -> PoolView:
    """Return a pool as it is now. Raises :class:`UnknownPool` or :class:`Unreadable`."""
    with system.database.read() as session:
        found = _stored(session, system.now(), (name,))
    if name not in found:
        raise pools.unknown(name)
    return _view(name, found[name], snapshots(system.redis, [name])[name], system.now())


def every(system: System) -> list[PoolView]:
    """Return all pools as they are now, by name: one transaction, and one round trip to Redis."""
    try:
        with system.database.read() as session:
            found = _stored(session, system.now())
    except Exception as error:
        if is_outage(error):
            raise
        return [pool for name in system.pool_names() if (pool := _alone(system, name)) is not None]
    agents = snapshots(system.redis, list(found))
    return [_readable(name, stored, agents[name], system.now()) for name, stored in found.items()]


def _stored(session: Session, now: datetime, names: Collection[str] | None = None) -> dict[str, StoredPool]:
    since = now - timedelta(seconds=FAILURE_WINDOW)
    return overview.read(session, names, waiting=WAITING_SHOWN, decisions=DECISIONS_SHOWN, failed_since=since)


def _alone(system: System, name: str) -> PoolView | None:
    """Return one of several pools of which one can't be read; None where it was deleted just now."""
    try:
        return one(system, name)
    except UnknownPool:
        return None
    except Exception as error:
        if is_outage(error):
            raise
        return _unreadable(name, explained(error))


def _readable(name: str, stored: StoredPool, agents: list[AgentRecord] | Damaged, now: datetime) -> PoolView:
    try:
        return _view(name, stored, agents, now)
    except Unreadable as error:
        return _unreadable(name, explained(error))


def _unreadable(name: str, why: str) -> PoolView:
    return shown(
        PoolView,
        PoolSpec(name=name),
        type="unreadable",
        limits=dict.fromkeys(PoolLimits.model_fields),
        timeouts=dict.fromkeys(PoolTimeouts.model_fields),
        programs=(),
        slots=SlotCounts(0, 0, 0, 0, 0, 0),
        agents=(),
        pending=dict.fromkeys(map(str, RunKind), 0),
        runs={},
        waiting=(),
        status_message=why,
        size_reason=None,
        starting=0,
        decisions=(),
    )


def _view(name: str, stored: StoredPool, agents: list[AgentRecord] | Damaged, now: datetime) -> PoolView:
    spec = pools.parse(name, stored.spec)
    status = stored.status_message
    if isinstance(agents, Damaged):  # the next cycle removes what no verb writes
        agents, status = [], str(agents)
    stats, holding = PoolStats.of(agents), {run.id: run for run in stored.holding}
    situation = PoolSituation(
        spec.limits.max_agents, spec.draining, stats, stored.outlook, [agent for agent in agents if agent.available]
    )
    return shown(
        PoolView,
        spec,
        limits=spec.limits.model_dump(),
        timeouts=spec.timeouts.model_dump(),
        programs=tuple(map(str, PoolPrograms.stored(stored.programs).programs)),
        slots=shown(SlotCounts, stats, free_plan_and_apply=stats.free_apply),
        agents=tuple(_agent(record, holding) for record in agents),
        pending={kind.value: count for kind, count in stored.pending.items()},
        runs=dict(Counter(run.status.value for run in stored.holding)),
        waiting=tuple(_waiting(stored.waiting, name, situation, now)),
        status_message=status,
        size_reason=size_reason(
            situation, spec.limits, stored.pending, stored.failures, now, deployment=spec.deployment
        ),
        starting=situation.starting,
        decisions=tuple(map(decision, stored.decisions)),
    )


def _waiting(runs: Sequence[Run], pool: str, situation: PoolSituation, now: datetime) -> Iterator[RunView]:
    """Return the first runs in a pool's line, which are in its order, with what they wait for."""
    before = Counter[Demand]()
    for run in runs:
        standing = Standing(
            run.kind, pool, runnable=True, before=before, start_error=run.start_error, terraform=run.terraform
        )
        yield view(run, for_a_slot(standing, situation, now))
        before[run.kind, run.terraform] += 1


def _agent(record: AgentRecord, holding: Mapping[str, Run]) -> AgentView:
    held = {lease.slot: lease for lease in record.leases}
    return AgentView(
        name=record.name,
        state=record.state,
        registered_at=_time(record.registered_at),
        heartbeat_at=_time(record.heartbeat_at),
        programs=tuple(map(str, record.programs)),
        slots=tuple(_slot(slot, held.get(slot), holding) for slot in range(SLOTS_PER_AGENT)),
    )


def _slot(slot: int, lease: Lease | None, holding: Mapping[str, Run]) -> SlotView:
    if lease is None:
        return SlotView(slot, SlotState.IDLE)
    run = holding.get(lease.run)
    planned = run is not None and run.status is not RunStatus.PLANNING
    return shown(
        SlotView,
        lease,
        run_id=lease.run,
        workspace=run.workspace if run else None,
        status=run.status if run else None,
        since=_time(lease.since),
        until=None if lease.until is None else _time(lease.until),
        changes=run.changes if run and planned else None,
        destroys=run.changes_destroy or 0 if run and planned else None,
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
