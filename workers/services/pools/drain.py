"""Draining by hand: the agents of a pool, one or all, finish their runs and get no others.

A draining agent keeps its plans, and applies them when they are confirmed. A draining pool is marked in its
configuration: reconcile drains agents that come later, and no pods are created for the runs that wait.
"""

import time
from contextlib import suppress

from workers.core.errors import AgentGone, StillInUse, UnknownAgent, Unreadable
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
        slots.drain(agent.name)
    return held(system, name)


def undrain_pool(system: System, name: str) -> None:
    """Give runs to the pool again. Raises :class:`UnknownPool`."""
    with pool_lock(system, name):
        spec = _set(system, name, draining=False)
        for agent in _staying(PodSnapshot(system, spec)):
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
    slots = system.slots(pool_of(system, agent))
    slots.drain(agent)
    record = slots.agent(agent)
    if record is None:
        raise AgentGone(f"The agent {agent} has gone just now.")
    return record


def drain_node(system: System, node: str) -> list[AgentRecord]:
    """Give no run to the agents on a node any more; return their records. Raises :class:`UnknownAgent` for none.

    For a node that is cordoned where this control plane may not read nodes.
    """
    return [drain_agent(system, agent) for agent in _on(system, node)]


def undrain_node(system: System, node: str) -> list[str]:
    """Give runs to the agents on a node again; return their names. Raises as :func:`undrain_agent`."""
    agents = _on(system, node)
    for agent in agents:
        undrain_agent(system, agent)
    return agents


def _on(system: System, node: str) -> list[str]:
    """Return the agents whose pods run on a node."""
    specs: list[PoolSpec] = []
    for name in system.pool_names():
        with suppress(Unreadable):  # whose pods are not known, and which is shown as that
            specs.append(system.pool(name))
    snapshots = [PodSnapshot(system, spec) for spec in specs if system.pods(spec).moves_pods]
    pods = [pod for snapshot in snapshots for pod in snapshot.pods if pod.node == node and not pod.deleting]
    found = [pod.name for pod in pods if system.slots(pod.pool).agent(pod.name) is not None]
    if not found:
        raise UnknownAgent(f"No agent runs on the node {node!r}: `kubectl get pods --output wide` shows the nodes.")
    return found


def undrain_agent(system: System, agent: str) -> None:
    """Give runs to an agent again. Raises :class:`UnknownAgent`, :class:`StillInUse` or :class:`AgentGone`."""
    pool = pool_of(system, agent)
    with pool_lock(system, pool) as spec:
        if spec.draining:
            raise StillInUse(f"The pool {pool!r} of {agent} drains: `terraslot pool undrain {pool}` ends that.")
        snapshot = PodSnapshot(system, spec)
        if agent not in _staying(snapshot):
            raise AgentGone(f"The pod of {agent} is being deleted: it can't be given any run.")
        if (pod := snapshot.find(agent)) and pod.node in (snapshot.cordoned_nodes() or ()):
            raise StillInUse(f"The node {pod.node} of {agent} takes no pods: `kubectl uncordon {pod.node}` ends that.")
        system.slots(pool).undrain(agent)
    dispatch(system, pool)


def _staying(snapshot: PodSnapshot) -> list[str]:
    """Return the names of the pods that are neither being deleted nor being released to a Deployment."""
    released = snapshot.spec.releases_single_pods
    return [pod.name for pod in snapshot.pods if not pod.deleting and (pod.controlled or not released)]


def pool_of(system: System, agent: str) -> str:
    """Return the name of the pool of an agent. Raises :class:`UnknownAgent`."""
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
