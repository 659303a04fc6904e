"""The pod manager: how many pods a pool has, and which may go.

Scale-down has one safe order: claim idle agents in the slot map (one atomic step finds them idle and takes them out
of every free count), delete each by its uid, and give back the claim of what could not be deleted. A starting pod,
or one with a running or reserved slot, is never a victim, whatever the desired count says (F1, F2).
"""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass

import structlog

from workers.core.errors import Unavailable
from workers.core.pods import Pod, PodPhase
from workers.core.pools import PoolSpec
from workers.core.scaling import FAILURE_WINDOW, Decision, PoolFacts, decide
from workers.core.slots import AgentRecord, SlotState
from workers.services.system import System
from workers.store import decisions, pools, runs

log = structlog.get_logger(__name__)

_SUFFIX_BYTES = 3


@dataclass(frozen=True, slots=True)
class PodCount:
    """Pods of a pool: ``current`` are ready or starting, ``desired`` is what the last decision asked for."""

    current: int
    desired: int


def ensure_pods_for_pool(system: System, spec: PoolSpec) -> int:
    """Create pods up to the pool's minimum; return how many were created."""
    missing = spec.limits.min_agents - observe(system, spec).current
    return _create(system, spec, missing)


def scale_pods(system: System, spec: PoolSpec, desired: int) -> int:
    """Bring the pool towards ``desired`` pods; return by how many it changed.

    Downwards, only pods whose slots are all idle go, even if that leaves more than ``desired``.
    """
    current = observe(system, spec).current
    if desired >= current:
        return _create(system, spec, min(desired, spec.limits.max_agents) - current)
    return -_remove_idle(system, spec, current - desired)


def get_pod_count(system: System, spec: PoolSpec) -> PodCount:
    """Return how many pods the pool has, and how many it was last meant to have."""
    current = observe(system, spec).current
    with system.database.read() as session:
        last = next(iter(decisions.recent(session, spec.name, limit=1)), None)
    return PodCount(current, last.desired if last else current)


def autoscale_pods(system: System, spec: PoolSpec) -> tuple[int, bool]:
    """Decide how many pods the pool should have and act on it; return (desired, whether anything changed).

    Every decision that changes something, and every refusal whose reason is new, is stored with its facts.
    """
    now = system.now()
    facts = observe(system, spec)
    decision = decide(facts, spec.limits, now.timestamp())
    if decision.noteworthy:
        _store(system, spec, facts, decision)
    if not decision.changes:
        return decision.desired, False
    log.info(
        "scaling", pool=spec.name, current=decision.current, desired=decision.desired, reason=decision.reason.value
    )
    return decision.desired, scale_pods(system, spec, decision.desired) != 0


def observe(system: System, spec: PoolSpec) -> PoolFacts:
    """Return the facts that scaling decisions are made from."""
    now = system.now().timestamp()
    slots = system.slots(spec.name)
    agents = slots.snapshot()
    pods = system.pods(spec).list(spec.name)
    with system.database.read() as session:
        pending_plans, pending_applies = runs.pending_counts(session, spec.name)
        failures = decisions.pod_failures(session, spec.name, now - FAILURE_WINDOW)
    available = [agent for agent in agents if agent.available]
    leases = [lease for agent in available for lease in agent.leases]
    stats = slots.stats()
    return PoolFacts(
        ready=len(available),
        starting=sum(_is_starting(pod, agents, spec, now) for pod in pods),
        free_apply=stats.free_apply,
        free_plan_only=stats.free_plan_only,
        used=len(leases),
        reserved=sum(lease.state is SlotState.RESERVED for lease in leases),
        pending_plans=pending_plans,
        pending_applies=pending_applies,
        idle_since=tuple(agent.idle_since for agent in available if agent.idle_since is not None),
        failures=tuple(failures),
    )


def _is_starting(pod: Pod, agents: list[AgentRecord], spec: PoolSpec, now: float) -> bool:
    return (
        not pod.deleting
        and pod.phase in (PodPhase.PENDING, PodPhase.RUNNING)
        and now - pod.created_at <= spec.limits.start_deadline
        and all(agent.name != pod.name for agent in agents)
    )


def _create(system: System, spec: PoolSpec, count: int) -> int:
    created = 0
    for _ in range(count):
        name = f"{spec.name}-{secrets.token_hex(_SUFFIX_BYTES)}"
        system.pods(spec).create(spec, name)
        log.info("pod created", pool=spec.name, pod=name)
        created += 1
    return created


def _remove_idle(system: System, spec: PoolSpec, count: int) -> int:
    slots, backend = system.slots(spec.name), system.pods(spec)
    claimed = slots.drain_idle(count)
    removed = 0
    pods = {pod.name: pod for pod in backend.list(spec.name)} if claimed else {}
    for agent in claimed:
        try:
            if agent in pods and backend.delete(pods[agent]):
                removed += 1
                log.info("pod deleted", pool=spec.name, pod=agent, slots="idle")
        except Unavailable:
            slots.undrain(agent)
            log.warning("pod not deleted, claim given back", pool=spec.name, pod=agent, exc_info=True)
    return removed


def _store(system: System, spec: PoolSpec, facts: PoolFacts, decision: Decision) -> None:
    reason = f"{decision.reason}: {decision.refused}" if decision.refused else decision.reason.value
    with system.database.begin() as session:
        last = next(iter(decisions.recent(session, spec.name, limit=1)), None)
        repeated = last is not None and decision.refused is not None and last.reason == reason
        if not repeated:
            decisions.record(
                session,
                spec.name,
                system.now(),
                current=decision.current,
                desired=decision.desired,
                reason=reason,
                facts=asdict(facts),
            )
        pools.set_status(session, spec.name, reason if decision.refused else None, system.now())
