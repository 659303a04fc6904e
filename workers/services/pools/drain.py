"""Draining by hand: the agents of a pool, one or all, finish their runs and get no others.

A draining agent keeps its plans, and applies them when they are confirmed. A draining pool is marked in its
configuration: reconcile drains agents that come later, and no pods are created for the runs that wait.
"""

import time

from workers.core.errors import AgentGone, StillInUse, UnknownAgent
from workers.protocol.leases import AgentRecord
from workers.services.pool_state import PodSnapshot, pool_lock
from workers.services.runs.dispatch import dispatch
from workers.services.system import System
from workers.specs.pools import PoolSpec
from workers.store import pools

# Seconds between two reads of the slot map while a person waits at a terminal.
POLL_SECONDS = 0.2


def drain_pool(system: System, name: str) -> int:
    """Give no run to the pool any more; return how many slots are still held. Raises :class:`UnknownPool`."""
    _set(system, name, draining=True)
    slots = system.slots(name)
    for agent in slots.snapshot():
        if not agent.draining:
            slots.drain(agent.name)
    return held(system, name)


def undrain_pool(system: System, name: str) -> None:
    """Give runs to the pool again. Raises :class:`UnknownPool`."""
    with pool_lock(system, name):
        spec = _set(system, name, draining=False)
        for agent in _staying(system, spec):
            system.slots(name).undrain(agent)
    dispatch(system, name)


def wait_until_drained(system: System, name: str) -> None:
    """Wait until no slot of the pool is held."""
    while held(system, name):
        time.sleep(POLL_SECONDS)


def held(system: System, name: str) -> int:
    """Return how many slots of a pool are running or reserved."""
    return system.slots(name).stats().used


def drain_agent(system: System, agent: str) -> AgentRecord:
    """Give no run to an agent any more; return its record. Raises :class:`UnknownAgent`."""
    slots = system.slots(_pool_of(system, agent))
    slots.drain(agent)
    record = slots.agent(agent)
    if record is None:
        raise AgentGone(f"The agent {agent} has gone just now.")
    return record


def undrain_agent(system: System, agent: str) -> None:
    """Give runs to an agent again. Raises :class:`UnknownAgent`, :class:`StillInUse` or :class:`AgentGone`."""
    pool = _pool_of(system, agent)
    with pool_lock(system, pool) as spec:
        if spec.draining:
            raise StillInUse(f"The pool {pool!r} of {agent} drains: `terraslot pool undrain {pool}` ends that.")
        if agent not in _staying(system, spec):
            raise AgentGone(f"The pod of {agent} is being deleted: it can't be given any run.")
        system.slots(pool).undrain(agent)
    dispatch(system, pool)


def _staying(system: System, spec: PoolSpec) -> list[str]:
    """Return the names of the pods that are neither being deleted nor being released to a Deployment."""
    return [
        pod.name
        for pod in PodSnapshot(system, spec).pods
        if not pod.deleting and (pod.controlled or not spec.releases_single_pods)
    ]


def _pool_of(system: System, agent: str) -> str:
    # An agent's name begins with that of its pool, unless a Deployment gave it: the likely pools are asked first.
    for name in sorted(system.pool_names(), key=lambda name: not agent.startswith(name)):
        if system.slots(name).agent(agent) is not None:
            return name
    raise UnknownAgent(f"No agent has the name {agent!r}: `terraslot agent list` shows all.")


def _set(system: System, name: str, *, draining: bool) -> PoolSpec:
    with system.database.begin() as session:
        spec = pools.get(session, name).model_copy(update={"draining": draining})
        pools.update(session, spec, system.now())
    return spec
