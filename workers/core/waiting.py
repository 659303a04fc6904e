"""What a pending run waits for, told from facts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from workers.core.lifecycle import RunStatus
from workers.core.programs import unmet
from workers.protocol.kinds import RunKind
from workers.protocol.leases import AgentRecord, PoolStats
from workers.protocol.programs import listed

# The kind of a run, and what it requires of its program.
Demand = tuple[RunKind, str | None]
# What to do about a state that a run could not save.
PUSH = "`terraslot state push {run}` saves it, `terraslot state give-up {run}` lets it go"


@dataclass(frozen=True, slots=True)
class MaintenanceLock:
    """Somebody holds the state-changing runs of a workspace that have not started: ``by`` whom, since when, and why."""

    by: str
    at: datetime
    message: str

    def __str__(self) -> str:
        return f"locked by {self.by} since {self.at:%Y-%m-%d %H:%M} UTC: {self.message}"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a pending run stands.

    ``runnable``: it needs nothing but a slot. Then ``before`` says how many runs of its pool start before it, by their
    kind and by what they require; else ``in_front``, how many of its workspace do. ``active``: the run of its workspace
    that has started. ``start_error``: why its order could not be made, though a slot was free. ``terraform``: what it
    requires. ``unsaved``: the run whose state could not be saved, which holds the workspace.
    """

    kind: RunKind
    pool: str
    runnable: bool
    in_front: int = 0
    before: Mapping[Demand, int] = field(default_factory=dict)
    active: tuple[str, RunStatus] | None = None
    lock: MaintenanceLock | None = None
    start_error: str | None = None
    terraform: str | None = None
    unsaved: str | None = None


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the last cycle of a pool says of agents to come.

    ``starting`` pods had not registered then, and ``available`` agents accepted runs. ``blocked``: what keeps the pool
    from more agents. By ``due``, another cycle should have followed.
    """

    starting: int
    available: int
    blocked: str | None
    due: datetime

    def still_starting(self, available: int) -> int:
        """Return how many of the pods still start, now that so many agents accept runs."""
        return max(0, min(self.starting, self.starting + self.available - available))


@dataclass(frozen=True, slots=True)
class PoolSituation:
    """What the runs of a pool can expect of it. ``outlook``: None where no cycle has looked at it yet.

    ``agents`` are those that accept runs; they matter to runs that require a program.
    """

    maximum: int
    draining: bool
    stats: PoolStats
    outlook: Outlook | None
    agents: Sequence[AgentRecord] = ()

    @property
    def starting(self) -> int:
        """Pods that have not registered yet."""
        return self.outlook.still_starting(self.stats.available) if self.outlook else 0

    @property
    def full(self) -> bool:
        """Whether the pool has as many agents as it may have, starting pods among them."""
        return self.stats.available + self.starting >= self.maximum


def for_its_workspace(run: Standing) -> str:
    """Say what a run waits for that is not runnable, with its place."""
    if run.lock:
        return f"the workspace is {run.lock}"
    if run.unsaved:
        return f"run {run.unsaved} could not save the workspace's state: {PUSH.format(run=run.unsaved)}"
    if run.active is None:
        return f"other runs of the workspace come first ({_place(run.in_front)})"
    name, status = run.active
    does = "which waits for a person" if status is RunStatus.APPLY_PENDING else status.value
    return f"the workspace is busy with run {name}, {does} ({_place(run.in_front)})"


def for_a_slot(run: Standing, pool: PoolSituation, now: datetime) -> str:
    """Say what a runnable run waits for, with its place, and when there will be more slots."""
    if pool.draining:
        return "its pool drains, and no run is given to it"
    able = [agent for agent in pool.agents if not unmet([run.terraform], [agent])] if run.terraform else pool.agents
    if run.terraform and pool.agents and not able:
        return "; ".join([_no_program(run.terraform, pool.agents), *_prospects(pool, now)])
    if free_for(PoolStats.of(able) if run.terraform else pool.stats, run.kind):
        return f"it can't be started: {run.start_error}" if run.start_error else "a slot is free: it starts in a moment"
    if not pool.stats.available:
        missing = "no agent accepts runs"
    else:
        missing = "no slot is free" if run.kind is RunKind.PLAN else "no apply slot is free"
    return "; ".join([f"{missing} ({_place(_in_front(run, able))})", *_prospects(pool, now)])


def _in_front(run: Standing, able: Sequence[AgentRecord]) -> int:
    """Return how many of the runs that start before it may take a slot that it could have. ``able``: its agents.

    A state-changing run needs slot 0, which any run may take. A plan has the plan-only slots as well, which only plans
    take. A run that requires what none of these agents has takes none of theirs; where there is none, it may take those
    of agents to come.
    """
    rivals = [demand for demand in run.before if run.kind is not RunKind.PLAN or demand[0] is RunKind.PLAN]
    elsewhere = unmet((required for _, required in rivals), able) if able else ()
    return sum(run.before[demand] for demand in rivals if demand[1] not in elsewhere)


def _no_program(required: str, present: Sequence[AgentRecord]) -> str:
    have = listed({program for agent in present for program in agent.programs}) or "no version"
    return f"no agent has {required}: those that accept runs have {have}"


def free_for(stats: PoolStats, kind: RunKind) -> int:
    """Return how many slots a run of this kind could be given."""
    return stats.free_plan if kind is RunKind.PLAN else stats.free_apply


def _prospects(pool: PoolSituation, now: datetime) -> Iterator[str]:
    """Say when there will be more slots, or why there will not."""
    if pool.starting:
        yield "1 pod is starting" if pool.starting == 1 else f"{pool.starting} pods are starting"
    if pool.full:
        yield f"the pool is at its maximum of {agents(pool.maximum)}"
    if pool.outlook is None:
        return
    if now > pool.outlook.due:
        yield "no cycle of the pool has ended lately: `terraslot doctor` says what is missing"
    elif pool.outlook.blocked and (pool.starting or not pool.full):
        yield pool.outlook.blocked


def _place(in_front: int) -> str:
    return f"{in_front} in front" if in_front else "first in line"


def agents(number: int) -> str:
    """Return a number of agents in words."""
    return "1 agent" if number == 1 else f"{number} agents"
