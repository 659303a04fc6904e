"""Give up an agent whose node is gone for good, on the word of a person who knows that.

Its pod stays in the cluster until the node confirms the end of its processes, which a dead node never does. So the pod
is removed without that, and its runs are requeued or failed as where the cluster itself says that the pod is gone. If
the node lives after all, Terraform may still run there: nothing here can know.
"""

from dataclasses import dataclass

import structlog

from workers.core.errors import StillInUse
from workers.protocol.errors import InvalidRequest
from workers.protocol.leases import AgentRecord
from workers.services.pool_state import PodSnapshot, pool_lock
from workers.services.pools.drain import pool_of
from workers.services.runs.report import agent_gone
from workers.services.runs.views import RunView, view
from workers.services.system import System
from workers.store import runs

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Forgotten:
    """An agent that was given up, and the runs that it held, as they are now."""

    agent: str
    pool: str
    runs: tuple[RunView, ...]


def held_runs(system: System, agent: str) -> tuple[RunView, ...]:
    """Return the runs that an agent holds, if it may be given up; raises as :func:`forget_agent`."""
    pool = pool_of(system, agent)
    return _runs(system, [lease.run for lease in _given_up(system, pool, agent).leases])


def forget_agent(system: System, agent: str) -> Forgotten:
    """Remove the pod of an agent whose node is gone, and requeue or fail the agent's runs.

    Stopped half-way, it can be repeated, or the next cycle of the pool does the rest. Raises :class:`UnknownAgent`;
    :class:`StillInUse` where the agent is heard; :class:`InvalidRequest` where no node runs it; :class:`Unavailable`
    where the cluster can't be asked, with nothing changed; and :class:`LockLost`.
    """
    pool = pool_of(system, agent)
    with pool_lock(system, pool) as spec:
        record = _given_up(system, pool, agent)
        snapshot = PodSnapshot(system, spec)
        if pod := snapshot.find(agent):
            log.warning("pod removed without its node", pool=pool, pod=agent, node=pod.node)
            snapshot.delete(pod, force=True)
        agent_gone(system, pool, agent, record.instance_id, "a person said that its node is gone")
    return Forgotten(agent, pool, _runs(system, [lease.run for lease in record.leases]))


def _given_up(system: System, pool: str, agent: str) -> AgentRecord:
    spec = system.pool(pool)
    if not system.pods(spec).moves_pods:
        raise InvalidRequest(f"The agent {agent} is a process of this machine: there is no node that could be gone.")
    record = system.slots(pool).agent(agent)
    if record is None or not record.silent:
        raise StillInUse(f"The agent {agent} is heard: its node is not gone. `terraslot agent drain {agent}` is safe.")
    return record


def _runs(system: System, ids: list[str]) -> tuple[RunView, ...]:
    with system.database.read() as session:
        return tuple(view(runs.get(session, each)) for each in ids)
