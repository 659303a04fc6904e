"""What pending runs wait for: the facts, for people who look and for callers that poll."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from workers.core.errors import Unreadable
from workers.core.lifecycle import RunStatus
from workers.core.waiting import Outlook, PoolSituation, Standing, for_a_slot, for_its_workspace
from workers.protocol.errors import Damaged
from workers.protocol.kinds import RunKind
from workers.protocol.leases import AgentRecord, PoolStats
from workers.services.runs.views import RunView, why_silent
from workers.services.system import System
from workers.slots.connection import run_together
from workers.slots.slot_map import snapshots
from workers.store import places, pools, workspace_queue

# Runs of a pool, in line for a slot or queued in their workspaces, whose callers are told in each cycle.
TOLD_AT_MOST = 250


def reasons(system: System, ids: Collection[str]) -> dict[str, str]:
    """Say by id what each of these runs waits for; nothing of one that is pending no more. Raises an outage."""
    with system.database.read() as session:
        standings = places.of(session, ids)
        in_line = {standing.pool for standing in standings.values() if standing.runnable}
        stored = pools.outlooks(session, in_line) if in_line else {}
    agents = snapshots(system.redis, list(stored))
    situations = {pool: _situation(pool, *facts, agents[pool]) for pool, facts in stored.items()}
    return {run: _reason(system, standing, situations) for run, standing in standings.items()}


def with_reasons(system: System, found: Sequence[RunView]) -> list[RunView]:
    """Return runs with what those that are pending wait for. Raises an outage."""
    pending = [run.run_id for run in found if run.status is RunStatus.PENDING]
    why = reasons(system, pending) if pending else {}
    return [replace(run, waiting=why.get(run.run_id)) for run in found]


def with_reason(system: System, run: RunView) -> RunView:
    """Return a run with what it waits for beside a person and Terraform. Raises an outage."""
    if run.status is RunStatus.PENDING:
        return with_reasons(system, [run])[0]
    return run if run.status.is_over else replace(run, waiting=why_silent(system, run))


def tell(system: System, pool: str) -> None:
    """Let ``AsyncResult.info`` of the runs that wait in a pool say why: of the first of them."""
    from workers.services.runs import deliver  # noqa: PLC0415 - loads the Celery app, which who only looks does without

    with system.database.read() as session:
        in_line = workspace_queue.runnable(session, pool, tuple(RunKind), TOLD_AT_MOST)
        found = in_line + workspace_queue.queued(session, pool, TOLD_AT_MOST)
    waiting = {run.id: run for run in found}
    why = reasons(system, waiting)
    run_together(system.redis, [deliver.announcement(system, waiting[run], waiting=why[run]) for run in why])


def _reason(system: System, standing: Standing, situations: Mapping[str, PoolSituation | str]) -> str:
    if not standing.runnable:
        return for_its_workspace(standing)
    situation = situations[standing.pool]
    return situation if isinstance(situation, str) else for_a_slot(standing, situation, system.now())


def _situation(
    pool: str, spec: str, outlook: Outlook | None, agents: list[AgentRecord] | Damaged
) -> PoolSituation | str:
    """Return what runs can expect of a pool, or what keeps it from being read."""
    if isinstance(agents, Damaged):
        return str(agents)
    try:
        policy = pools.parse(pool, spec)
    except Unreadable as error:
        return str(error)
    available = [agent for agent in agents if agent.available]
    return PoolSituation(policy.limits.max_agents, policy.draining, PoolStats.of(agents), outlook, available)
