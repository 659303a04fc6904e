"""Busy pods are left where they are, idle ones need not be: the marks follow the slot map.

A pod is marked within moments of its first lease, by a task of its own: the API server may be slow, and no run should
wait for it. The marks of idle pods are removed by the cycle, which lists the pods anyway and repairs what was lost;
a pod that becomes idle for a moment between two runs is not touched twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from workers.core.pods import Pod, PodPhase, SafeToEvict, safe_to_evict_changes
from workers.protocol import names
from workers.protocol.errors import TerraslotError
from workers.protocol.leases import AgentRecord, Lease
from workers.services.pod_snapshot import PodSnapshot
from workers.services.system import System
from workers.specs.pools import PoolSpec
from workers.store import pools

log = structlog.get_logger(__name__)


def ask_for_mark(system: System, spec: PoolSpec, lease: Lease) -> None:
    """Have the pod marked that this lease makes busy, where the cluster may move pods."""
    if system.pods(spec).moves_pods:
        arguments = [spec.name, lease.agent, lease.run]
        system.celery.send_task(names.PROTECT, args=arguments, expires=system.settings.cycle_seconds)


def protect(system: System, pool: str, agent: str, run: str) -> bool:
    """Mark the pod of an agent, if this run is the one that made it busy; whether it was marked."""
    record = system.slots(pool).agent(agent)
    since = {lease.run: lease.since for lease in record.leases} if record else {}
    if record is None or run not in since or since[run] > min(since.values()):
        return False  # an earlier run has had it marked
    with system.database.read() as session:
        spec = pools.get(session, pool)
    # A pod's name is given once, so that its uid need not be asked for.
    pod = Pod(agent, "", pool, record.registered_at, PodPhase.RUNNING)
    failures = system.pods(spec).set_safe_to_evict([SafeToEvict(pod, safe=False)])
    _tell(pool, failures)
    return not failures


def protect_pods(
    system: System, spec: PoolSpec, listing: PodSnapshot, agents: Sequence[AgentRecord]
) -> list[SafeToEvict]:
    """Make the marks of a pool's pods what they should be; return what was changed.

    What fails is tried again in the next cycle.
    """
    wanted = safe_to_evict_changes(listing.pods, agents)
    if not wanted:
        return []
    _tell(spec.name, listing.set_safe_to_evict(wanted))
    idle = {change.pod.name: change.pod for change in wanted if change.safe}
    # A run may have been given to one of them meanwhile, whose mark was the one that has just been removed.
    now = system.slots(spec.name).snapshot() if idle else []
    busy = [agent.name for agent in now if agent.leases and agent.name in idle]
    if again := [SafeToEvict(idle[name], safe=False) for name in busy]:
        _tell(spec.name, listing.set_safe_to_evict(again))
    return wanted


def _tell(pool: str, failures: dict[str, TerraslotError]) -> None:
    for pod, error in failures.items():
        log.warning("pod not marked", pool=pool, pod=pod, why=str(error))
