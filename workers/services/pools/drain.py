"""Draining by hand: agents, one or all of a pool, finish what they hold and are given nothing more.

A drained agent keeps its plans and applies them when they are confirmed. A pool that drains says so in its
configuration, so that agents which come later drain too and nothing is created for the runs that wait.
"""

from __future__ import annotations

import time

from workers.core.errors import AgentGone, StillInUse, UnknownAgent
from workers.protocol.leases import AgentRecord
from workers.services.pod_snapshot import PodSnapshot
from workers.services.pool_lock import pool_lock
from workers.services.pools.manage import get as get_pool
from workers.services.runs.dispatch import dispatch
from workers.services.system import System
from workers.specs.pools import PoolSpec
from workers.store import pools

LOOK_SECONDS = 0.2


def drain_pool(system: System, name: str) -> int:
    """Give no run to the pool any more; return how many slots are still held. Raises :class:`UnknownPool`."""
    _set(system, name, draining=True)
    drain_agents(system, name)
    return held(system, name)


def undrain_pool(system: System, name: str) -> None:
    """Give runs to the pool again. Raises :class:`UnknownPool`."""
    with pool_lock(system, name):
        spec = _set(system, name, draining=False)
        slots = system.slots(name)
        for agent in _staying(system, spec):
            slots.undrain(agent)
    dispatch(system, name)


def wait_until_drained(system: System, name: str, timeout: float | None = None) -> bool:
    """Wait until no slot of the pool is held; False where that takes longer than ``timeout`` seconds."""
    until = None if timeout is None else time.monotonic() + timeout
    while held(system, name):
        if until is not None and time.monotonic() > until:
            return False
        time.sleep(LOOK_SECONDS)
    return True


def held(system: System, name: str) -> int:
    """Return how many slots of a pool are running or reserved."""
    return system.slots(name).stats().used


def drain_agents(system: System, name: str) -> None:
    """Let all agents drain that the pool has now."""
    slots = system.slots(name)
    for agent in slots.snapshot():
        if not agent.draining:
            slots.drain(agent.name)


def drain_agent(system: System, agent: str) -> AgentRecord:
    """Give no run to an agent any more; return what it holds. Raises :class:`UnknownAgent`."""
    spec = _pool_of(system, agent)
    slots = system.slots(spec.name)
    slots.drain(agent)
    return _record(slots.agent(agent), agent)


def undrain_agent(system: System, agent: str) -> None:
    """Give runs to an agent again.

    Raises :class:`UnknownAgent`, :class:`StillInUse` while its whole pool drains, and :class:`AgentGone` where its
    pod is on its way out.
    """
    pool = _pool_of(system, agent).name
    with pool_lock(system, pool):
        spec = get_pool(system, pool)
        if spec.draining:
            raise StillInUse(f"The pool {pool!r} of {agent} drains: `terraslot pool undrain {pool}` ends that.")
        if agent not in _staying(system, spec):
            raise AgentGone(f"The pod of {agent} is being deleted: nothing can be given to it any more.")
        system.slots(pool).undrain(agent)
    dispatch(system, pool)


def _staying(system: System, spec: PoolSpec) -> list[str]:
    """Return the names of pods that nobody has asked to go."""
    return [
        pod.name
        for pod in PodSnapshot(system, spec).pods
        if not pod.deleting and (pod.controlled or not spec.single_pods_leave)
    ]


def _pool_of(system: System, agent: str) -> PoolSpec:
    with system.database.read() as session:
        specs = pools.all(session)
    # A name of an agent begins with that of its pool, unless a Deployment gave it: the likely ones are asked first.
    for spec in sorted(specs, key=lambda spec: not agent.startswith(spec.name)):
        if system.slots(spec.name).agent(agent) is not None:
            return spec
    raise UnknownAgent(f"No agent has the name {agent!r}: `terraslot agent list` shows all.")


def _record(record: AgentRecord | None, agent: str) -> AgentRecord:
    if record is None:
        raise AgentGone(f"The agent {agent} has gone just now.")
    return record


def _set(system: System, name: str, *, draining: bool) -> PoolSpec:
    with system.database.begin() as session:
        spec = pools.get(session, name).model_copy(update={"draining": draining})
        pools.update(session, spec, system.now())
    return spec
