"""Tell the cluster which pods it may evict: idle ones; busy ones are not safe to evict.

The pod of an agent is protected within moments of its first lease, by a task of its own: the API server may be slow,
and no run waits for it. The cycle, which lists the pods anyway, makes idle pods safe to evict and repairs what was
lost; so a pod that is idle for a moment between two runs is not changed twice.
"""

from collections.abc import Sequence

import structlog

from workers.core.pods import Pod, PodPhase, SafeToEvict, safe_to_evict_changes
from workers.protocol.errors import TerraslotError
from workers.protocol.leases import AgentRecord
from workers.services.pool_state import PodSnapshot
from workers.services.system import System

log = structlog.get_logger(__name__)


def protect(system: System, pool: str, agent: str, run: str) -> bool:
    """Protect the pod of an agent, if this run is the one that made it busy; return whether that was done."""
    record = system.slots(pool).agent(agent)
    since = {lease.run: lease.since for lease in record.leases} if record else {}
    if record is None or run not in since or since[run] > min(since.values()):
        return False  # an earlier run has had it protected
    # The cluster never has two pods of one name, so that the uid is not needed.
    pod = Pod(agent, "", pool, record.registered_at, PodPhase.RUNNING)
    failures = system.pods(system.pool(pool)).set_safe_to_evict([SafeToEvict(pod, safe=False)])
    _log(pool, failures)
    return not failures


def protect_pods(snapshot: PodSnapshot, agents: Sequence[AgentRecord]) -> None:
    """Protect the busy pods of a pool, and no others. What fails is tried again in the next cycle."""
    changes = safe_to_evict_changes(snapshot.pods, agents)
    if not changes:
        return
    _log(snapshot.spec.name, snapshot.set_safe_to_evict(changes))
    idle = {change.pod.name: change.pod for change in changes if change.safe}
    # One of them may have been given a run meanwhile, and this has just undone its protection.
    now = snapshot.system.slots(snapshot.spec.name).snapshot() if idle else []
    busy = [agent.name for agent in now if agent.leases and agent.name in idle]
    if again := [SafeToEvict(idle[name], safe=False) for name in busy]:
        _log(snapshot.spec.name, snapshot.set_safe_to_evict(again))


def _log(pool: str, failures: dict[str, TerraslotError]) -> None:
    for pod, error in failures.items():
        log.warning("safe-to-evict not set", pool=pool, pod=pod, why=str(error))
