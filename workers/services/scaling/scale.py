"""The number of pods of a pool: decided, stored, and brought about.

Scale-down has one safe order: claim idle agents in the slot map (one atomic step finds them idle and takes them out
of every free count), delete each pod by its uid, and give back the claims of those that could not be deleted. A
starting pod, or one with a running or reserved slot, is never deleted, whatever the desired number is (F1, F2).
"""

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import structlog
from typing_extensions import deprecated

from workers import metrics
from workers.core.errors import PodRefused, StillInUse
from workers.core.pods import Pod
from workers.core.programs import unmet
from workers.core.scaling import FAILURE_WINDOW, Decision, PoolFacts, ScalingReason, back_off_until, decide
from workers.protocol.errors import Unavailable
from workers.protocol.kinds import RunKind
from workers.protocol.leases import AgentRecord, PoolStats
from workers.services.pool_state import PodSnapshot, pool_lock
from workers.services.scaling.reconcile import GIVE_UP_AFTER
from workers.services.system import System
from workers.slots.slot_map import SlotMap
from workers.specs.pools import PoolSpec
from workers.store import decisions, pools, workspace_queue

log = structlog.get_logger(__name__)

_SUFFIX_BYTES = 3  # a name that is taken creates no pod, and the next cycle creates the one that is missing


@dataclass(frozen=True, slots=True)
class PodCount:
    """Pods of a pool: ``current`` are ready or starting, ``desired`` is the number of the last decision."""

    current: int
    desired: int


def ensure_pods_for_pool(system: System, spec: PoolSpec) -> int:
    """Create pods up to the pool's minimum, unless creation backs off; return how many were created."""
    if spec.deployment or spec.draining:
        return 0  # the Deployment keeps a minimum of its own; a draining pool needs none
    snapshot = PodSnapshot(system, spec)
    facts, now = observe(snapshot), system.now().timestamp()
    if now < back_off_until(facts.failures, now):
        return 0
    return _create(snapshot, spec.limits.min_agents - facts.current)


@dataclass(frozen=True, slots=True)
class Scaled:
    """What scaling by hand has done: pods added or removed; ``kept``: how many are too many, ``short``: too few."""

    pool: str
    desired: int
    added: int
    removed: int
    kept: int
    short: int


def scale_now(system: System, name: str, desired: int) -> Scaled:
    """Bring a pool towards ``desired`` pods between cycles. Raises :class:`UnknownPool`, and as :func:`scale_pods`."""
    with pool_lock(system, name) as spec:
        before = observe(PodSnapshot(system, spec)).current
        changed = scale_pods(system, spec, desired)
    missing = desired - before - changed
    return Scaled(name, desired, max(changed, 0), max(-changed, 0), kept=max(-missing, 0), short=max(missing, 0))


def scale_pods(system: System, spec: PoolSpec, desired: int) -> int:
    """Bring the pool towards ``desired`` pods; return by how many it changed.

    Downwards, only pods whose slots are all idle are deleted, even if that leaves more than ``desired``. Raises
    :class:`StillInUse` while a Deployment runs the pool's pods, or the pool drains.
    """
    if spec.draining:
        raise StillInUse(f"The pool {spec.name!r} drains: `terraslot pool undrain {spec.name}` ends that.")
    if spec.deployment:
        raise StillInUse(f"The Deployment {spec.deployment!r} runs the pods of {spec.name!r}: adopt it, or scale that.")
    snapshot = PodSnapshot(system, spec)
    return _scale(snapshot, observe(snapshot).current, desired)


def get_pod_count(system: System, spec: PoolSpec) -> PodCount:
    """Return how many pods the pool has, and how many the last decision wanted."""
    current = observe(PodSnapshot(system, spec)).current
    with system.database.read() as session:
        last = next(iter(decisions.recent(session, spec.name, limit=1)), None)
    return PodCount(current, last.desired if last else current)


def autoscale_pods(system: System, spec: PoolSpec) -> tuple[int, bool]:
    """Decide how many pods the pool should have and act on it; return (desired, whether anything changed)."""
    scaled = autoscale(PodSnapshot(system, spec))
    return scaled.decision.desired if scaled.decision else scaled.facts.current, scaled.changed != 0


@dataclass(frozen=True, slots=True)
class Autoscaled:
    """What was decided about a pool, and by how many pods it ``changed``; no ``decision`` where it is not scaled."""

    facts: PoolFacts
    decision: Decision | None = None
    changed: int = 0

    @property
    def starting(self) -> int:
        """Pods that have not registered yet."""
        return self.facts.starting + max(self.changed, 0)

    @property
    def available(self) -> int:
        """Agents that accept runs."""
        return self.facts.ready + min(self.changed, 0)

    @property
    def held_back(self) -> bool:
        """Whether pods are missing that could not be created, now or in the last tries."""
        decided = self.decision
        return decided is not None and (
            decided.reason is ScalingReason.BACKING_OFF or decided.desired > decided.current + max(self.changed, 0)
        )


def autoscale(snapshot: PodSnapshot) -> Autoscaled:
    """Decide how many pods the pool of a snapshot should have, and act on it.

    Every decision that changes something, and every refusal whose reason is new, is stored with its facts.
    """
    system, spec = snapshot.system, snapshot.spec
    facts = observe(snapshot)
    if spec.deployment or spec.draining:
        return Autoscaled(facts)
    decision = decide(facts, spec.limits, system.now().timestamp())
    metrics.DECISIONS.add(spec.name, decision.reason)
    if decision.noteworthy:
        _store(snapshot, facts, decision)
    if not decision.changes:
        return Autoscaled(facts, decision)
    current, desired, reason = decision.current, decision.desired, decision.reason
    log.info("scaling", pool=spec.name, current=current, desired=desired, reason=reason.value)
    changed = _scale(snapshot, current, desired, outdated_only=reason is ScalingReason.OUTDATED)
    return Autoscaled(facts, decision, changed)


def observe(snapshot: PodSnapshot) -> PoolFacts:
    """Return the facts that scaling decisions are made from."""
    system, spec = snapshot.system, snapshot.spec
    slots = system.slots(spec.name)
    agents = slots.snapshot()
    ahead = slots.watched()[0] - system.now().timestamp()
    registered = {agent.name for agent in agents}
    unregistered = [pod for pod in snapshot.pods if pod.living and pod.name not in registered]
    available = [agent for agent in agents if agent.available]
    outdated = {pod.name for pod in snapshot.outdated}
    return replace(
        _facts(system, spec, agents),
        starting=sum(pod.age <= spec.limits.start_deadline for pod in unregistered),
        idle_since=tuple(agent.idle_since - ahead for agent in available if agent.idle_since is not None),
        outdated=sum(agent.name in outdated and not agent.leases for agent in available),
        updated=sum(agent.name not in outdated for agent in available),
    )


def needs_agents(system: System, pool: str) -> bool:
    """Whether more agents would be decided upon, by what is known without asking the cluster. Raises as ``pools.get``.

    The pods that start are those that started when the last cycle ended, and no agent counts as outdated.
    """
    with system.database.read() as session:
        spec, outlook = pools.get(session, pool), pools.outlook(session, pool)
    if spec.deployment or spec.draining:
        return False
    facts = _facts(system, spec, system.slots(pool).snapshot())
    starting = outlook.still_starting(facts.ready) if outlook else 0
    facts = replace(facts, starting=starting, updated=facts.ready)
    return decide(facts, spec.limits, system.now().timestamp()).desired > facts.current


def _facts(system: System, spec: PoolSpec, agents: Sequence[AgentRecord]) -> PoolFacts:
    """Return what is known of a pool without its pods."""
    with system.database.read() as session:
        pending = workspace_queue.pending_by_requirement(session, spec.name)
        failures = decisions.pod_failures(session, spec.name, system.now().timestamp() - FAILURE_WINDOW)
    available = [agent for agent in agents if agent.available]
    stats, waiting = PoolStats.of(available), _waiting(pending, available)
    return PoolFacts(
        ready=len(available),
        free_apply=stats.free_apply,
        free_plan_only=stats.free_plan_only,
        used=stats.used,
        reserved=stats.reserved,
        pending_plans=waiting[RunKind.PLAN],
        pending_applies=waiting[RunKind.PLAN_AND_APPLY],
        failures=tuple(failures),
        unmet=waiting[None],
    )


def _waiting(
    pending: Mapping[tuple[RunKind, str | None], int], agents: Sequence[AgentRecord]
) -> Counter[RunKind | None]:
    """Return how many runs wait for a slot, by kind, and for a program that no agent has, under None.

    Where there is no agent at all, each of them is a reason to start one.
    """
    missing = unmet((required for _, required in pending), agents) if agents else set[str]()
    waiting = Counter[RunKind | None]()
    for (kind, required), count in pending.items():
        waiting[None if required in missing else kind] += count
    return waiting


def _scale(snapshot: PodSnapshot, current: int, desired: int, *, outdated_only: bool = False) -> int:
    if desired >= current:
        return _create(snapshot, min(desired, snapshot.spec.limits.max_agents) - current)
    return -_remove_idle(snapshot, current - desired, outdated_only=outdated_only)


def _create(snapshot: PodSnapshot, count: int) -> int:
    """Create up to ``count`` pods; return how many were created. A failure makes the next creations back off."""
    system, spec = snapshot.system, snapshot.spec
    names = [f"{spec.name}-{secrets.token_hex(_SUFFIX_BYTES)}" for _ in range(count)]
    failures = snapshot.create(names)
    for name in names:
        if name not in failures:
            log.info("pod created", pool=spec.name, pod=name)
    if failures:
        metrics.PODS_FAILED.add(spec.name, "create", number=len(failures))
        error = next(iter(failures.values()))
        log.warning("pods not created", pool=spec.name, count=len(failures), why=str(error))
        with system.database.begin() as session:
            decisions.record_pod_failure(session, spec.name, system.now(), "", str(error))
    return len(names) - len(failures)


def _remove_idle(snapshot: PodSnapshot, count: int, *, outdated_only: bool) -> int:
    slots = snapshot.system.slots(snapshot.spec.name)
    claim = secrets.token_hex(8)
    removed = failed = 0
    for agent in _claim(slots, snapshot, count, claim, outdated_only=outdated_only):
        pod = snapshot.find(agent)  # None: it registered after the snapshot, and nothing is deleted without a uid
        if pod is not None and failed < GIVE_UP_AFTER:
            if _delete(snapshot, pod):
                removed += 1
                continue
            failed += 1
        slots.give_back(agent, claim)
    return removed


def _claim(slots: SlotMap, snapshot: PodSnapshot, count: int, claim: str, *, outdated_only: bool) -> list[str]:
    outdated = [pod.name for pod in snapshot.outdated]
    claimed = slots.claim_idle(count, claim, outdated) if outdated else []
    return claimed if outdated_only else slots.claim_idle(count, claim)  # those that are claimed already among them


def _delete(snapshot: PodSnapshot, pod: Pod) -> bool:
    try:
        snapshot.delete(pod)
    except (Unavailable, PodRefused) as error:
        log.warning("pod not deleted, claim given back", pool=pod.pool, pod=pod.name, why=str(error))
        return False
    log.info("pod deleted", pool=pod.pool, pod=pod.name, slots="idle")
    return True


def _store(snapshot: PodSnapshot, facts: PoolFacts, decision: Decision) -> None:
    system, pool = snapshot.system, snapshot.spec.name
    reason = f"{decision.reason}: {decision.refused}" if decision.refused else decision.reason.value
    sizes = {"current": decision.current, "desired": decision.desired}
    with system.database.begin() as session:
        last = next(iter(decisions.recent(session, pool, limit=1)), None)
        repeated = last is not None and decision.refused is not None and last.reason == reason
        if not repeated:
            decisions.record(session, pool, system.now(), **sizes, reason=reason, facts=asdict(facts))


# The names that these had while a pool's pods belonged to a Deployment.
ensure_deployment_for_pool = deprecated("ensure_deployment_for_pool is now ensure_pods_for_pool")(ensure_pods_for_pool)
scale_deployment = deprecated("scale_deployment is now scale_pods")(scale_pods)
get_deployment_replicas = deprecated("get_deployment_replicas is now get_pod_count")(get_pod_count)
auto_scale_deployment = deprecated("auto_scale_deployment is now autoscale_pods")(autoscale_pods)
