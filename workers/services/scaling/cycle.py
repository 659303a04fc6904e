"""The cycle of a pool: reconcile, rotate its credentials, scale, dispatch. Beat sends one task for every pool.

No cycle reconciles orphaned pods, whose pool was deleted: one task a round deletes them.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

import structlog

from workers import metrics
from workers.cluster.backend import PodBackend
from workers.core.actions import DeletePod
from workers.core.errors import UnknownPool
from workers.core.pods import Pod, PodPhase, SafeToEvict, safe_to_evict_changes
from workers.core.pool_history import Sample
from workers.core.programs import programs_of
from workers.core.reconcile import orphaned
from workers.core.waiting import Outlook
from workers.protocol import names
from workers.protocol.errors import TerraslotError
from workers.protocol.kinds import RunKind
from workers.protocol.leases import AgentRecord, PoolStats
from workers.services.errors import explained, is_outage, isolate
from workers.services.pool_state import PodSnapshot, note_programs
from workers.services.pools import adopt
from workers.services.runs.dispatch import dispatch
from workers.services.runs.waiting import tell
from workers.services.runs.wake import request_agents
from workers.services.scaling.problems import Seen, blocked, problem
from workers.services.scaling.reconcile import reconcile_pods
from workers.services.scaling.scale import autoscale, needs_agents
from workers.services.secrets.credentials import ensure_secret_for_pool
from workers.services.system import System
from workers.slots.locks import LockLost, renew_lock
from workers.store import pools, samples, workspace_queue
from workers.store.database import Session

log = structlog.get_logger(__name__)

# Seconds between two looks at a pool in which runs wait.
LOOK_AGAIN_AFTER = 1.0
# Without a cycle for so many intervals, what the last one has seen is not told any more.
_OVERDUE_CYCLES = 4


def cycle(system: System, pool: str) -> bool:
    """Reconcile, scale and dispatch one pool; False where another process does (F5, F28).

    Raises :class:`Unavailable` where the cluster, Redis or the database can't be asked, and :class:`LockLost` where
    this took so long that another process may have the pool's lock; nothing is scaled then.
    """
    again = partial(request_agents, system, pool)
    if not system.lock(pool, "cycle").work(lambda: _cycle(system, pool), left=again):
        return False
    dispatch(system, pool)
    with isolate("callers not told what their runs wait for", pool=pool):
        tell(system, pool)
    return True


def scale_for_waiting(system: System, pool: str) -> bool:
    """Run the cycle of a pool at once where more agents would help runs that wait; return whether it was run.

    It was asked for by a run that found no slot; whoever finds none from now on asks again. Raises as :func:`cycle`.
    """
    system.wake_up(pool, "scale").received(LOOK_AGAIN_AFTER)
    return needs_agents(system, pool) and cycle(system, pool)


def protect(system: System, pool: str, agent: str, run: str) -> bool:
    """Protect the pod of an agent, if this run is the one that made it busy; return whether that was done.

    A task of its own, within moments of the agent's first lease: the API server may be slow, and no run waits for it.
    """
    record = system.slots(pool).agent(agent)
    since = {lease.run: lease.since for lease in record.leases} if record else {}
    if record is None or run not in since or since[run] > min(since.values()):
        return False  # an earlier run has had it protected
    # The cluster never has two pods of one name, so that the uid is not needed.
    pod = Pod(agent, "", pool, 0.0, PodPhase.RUNNING)
    failures = system.pods(system.pool(pool)).set_safe_to_evict([SafeToEvict(pod, safe=False)])
    _log_unprotected(pool, failures)
    return not failures


def cycles(system: System) -> list[str]:
    """Send one cycle task for every pool, so that an error in one stops no other, and one sweep; return the pools.

    Cycles of many pools are spread over half of the interval, so that they don't ask one API server at one moment.
    """
    interval = system.settings.cycle_seconds
    system.celery.send_task(names.SWEEP, expires=interval)
    return _for_every_pool(system, names.CYCLE, interval, over=interval / 2)


def dispatches(system: System) -> list[str]:
    """Send one dispatch task for every pool: the safety net for wake-ups that were lost."""
    return _for_every_pool(system, names.DISPATCH, system.settings.dispatch_seconds)


def sweep(system: System) -> int:
    """Delete the orphaned pods that hold nothing, drain the others; return how many were deleted."""
    known, deleted = set(system.pool_names()), 0
    for kind, backend in system.backends.items():
        try:
            pods = backend.orphaned_pods(known)
            # A pool is stored before its pods exist: one that was created during the look is found now.
            current = set(system.pool_names()) if pods else set()
            deleted += sum(_sweep(system, backend, pod) for pod in pods if pod.pool not in current)
        except TerraslotError as error:  # they stay until the next round
            log.warning("orphaned pods not deleted", type=kind, why=str(error))
    return deleted


def _sweep(system: System, backend: PodBackend, pod: Pod) -> bool:
    slots = system.slots(pod.pool)
    action = orphaned(pod, slots.agent(pod.name))
    if action is not None:
        slots.drain(pod.name)
    if isinstance(action, DeletePod):
        backend.delete(pod)
        log.info("pod deleted", pool=pod.pool, pod=pod.name, why=action.reason)
    return isinstance(action, DeletePod)


def _cycle(system: System, pool: str) -> None:
    with metrics.CYCLES.measured(pool):
        _reconcile_and_scale(system, pool)


def _reconcile_and_scale(system: System, pool: str) -> None:
    for key, name in system.slots(pool).repair():
        log.warning("record removed, it is none that this system writes", pool=pool, key=key, name=names.one_line(name))
    try:
        spec = system.pool(pool)
        adopt.in_cycle(system, spec)
        snapshot = reconcile_pods(system, spec)
        agents = system.slots(pool).snapshot()
        _note_programs(snapshot, agents)
        _protect_busy(snapshot, agents)
        renew_lock()
        ensure_secret_for_pool(system, spec)
        renew_lock()
        scaled = autoscale(snapshot)
        renew_lock()
    except LockLost:
        raise  # the process that has the lock now sets the status
    except Exception as error:
        _tell(system, pool, error)
        raise
    seen = Seen(snapshot, agents, scaled)
    outlook = Outlook(scaled.starting, scaled.available, blocked(seen), _due(system))
    with system.database.begin() as session:
        pools.observed(session, pool, problem(seen), outlook)
        samples.record(session, pool, _sample(system, session, seen))


def _sample(system: System, session: Session, seen: Seen) -> Sample:
    """Return what a pool is now, for its history."""
    waiting, stats = Counter[RunKind](), PoolStats.of(seen.agents)
    for (kind, _), count in workspace_queue.pending_by_requirement(session, seen.snapshot.spec.name).items():
        waiting[kind] += count
    sizes = seen.scaled.available, seen.scaled.starting, stats.running, stats.reserved
    return Sample(system.now(), *sizes, waiting[RunKind.PLAN], waiting[RunKind.PLAN_AND_APPLY])


def _note_programs(snapshot: PodSnapshot, agents: Sequence[AgentRecord]) -> None:
    """Store what the agents have that are registered; where there is none, what the last ones had stays."""
    outdated = {pod.name for pod in snapshot.outdated}
    registered = [agent for agent in agents if snapshot.find(agent.name)]
    if registered:
        present = programs_of(registered, outdated, snapshot.template)
        note_programs(snapshot.system, snapshot.spec.name, lambda _: present)


def _tell(system: System, pool: str, error: Exception) -> None:
    """Let the pool's status say what ended its cycle; not a lost connection, nor that the pool was deleted."""
    if isinstance(error, UnknownPool) or (is_outage(error) and not isinstance(error, TerraslotError)):
        return
    why = explained(error)
    with system.database.begin() as session:
        before = pools.outlook(session, pool)
        starting, available = (before.starting, before.available) if before else (0, 0)
        pools.observed(session, pool, why, Outlook(starting, available, why, _due(system)))


def _due(system: System) -> datetime:
    return system.now() + timedelta(seconds=_OVERDUE_CYCLES * system.settings.cycle_seconds)


def _protect_busy(snapshot: PodSnapshot, agents: Sequence[AgentRecord]) -> None:
    """Protect the busy pods of a pool, and no others. What fails is tried again in the next cycle.

    Only here do idle pods become safe to evict: one that is idle for a moment between two runs is not changed twice.
    """
    changes = safe_to_evict_changes(snapshot.pods, agents)
    if not changes:
        return
    _log_unprotected(snapshot.spec.name, snapshot.set_safe_to_evict(changes))
    idle = {change.pod.name: change.pod for change in changes if change.safe}
    # One of them may have been given a run meanwhile, and this has just undone its protection.
    now = snapshot.system.slots(snapshot.spec.name).snapshot() if idle else []
    busy = [agent.name for agent in now if agent.leases and agent.name in idle]
    if again := [SafeToEvict(idle[name], safe=False) for name in busy]:
        _log_unprotected(snapshot.spec.name, snapshot.set_safe_to_evict(again))


def _log_unprotected(pool: str, failures: dict[str, TerraslotError]) -> None:
    for pod, error in failures.items():
        log.warning("safe-to-evict not set", pool=pool, pod=pod, why=str(error))


def _for_every_pool(system: System, task: str, interval: float, *, over: float = 0.0) -> list[str]:
    pools = system.pool_names()
    for number, pool in enumerate(pools):
        system.celery.send_task(task, args=[pool], expires=interval, countdown=over * number / len(pools))
    return pools
