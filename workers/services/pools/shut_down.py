"""End all agents before the control plane is removed: nothing would look after them then, and nothing protect them."""

import time

from workers.core.errors import StillInUse
from workers.services.formatting import counted
from workers.services.pool_state import PodSnapshot, pool_lock
from workers.services.pools.drain import POLL_SECONDS, drain_pool, held
from workers.services.system import System


def drain_all(system: System, timeout: float) -> int:
    """Drain every pool and, when no slot is held any more, end their agents; return how many pods are left.

    The pods of a Deployment stay, for it would create them anew. Raises :class:`StillInUse`, with no agent ended, where
    a slot is still held after ``timeout`` seconds: the pools go on draining, and a later call goes on from there.
    """
    names = system.pool_names()
    for name in names:
        drain_pool(system, name)
    until = time.monotonic() + timeout
    while working := {name: slots for name in names if (slots := held(system, name))}:
        if time.monotonic() > until:
            raise _still_in_use(working)
        time.sleep(POLL_SECONDS)
    return sum(_end_agents(system, name) for name in names)


def _end_agents(system: System, name: str) -> int:
    with pool_lock(system, name) as spec:
        snapshot = PodSnapshot(system, spec)
        for pod in snapshot.pods:
            agent = system.slots(name).agent(pod.name)
            # Where somebody has undrained the pool meanwhile, its agents may have runs.
            if not (pod.controlled or pod.deleting or (agent and agent.leases)):
                snapshot.delete(pod)
        return len(snapshot.pods)


def _still_in_use(working: dict[str, int]) -> StillInUse:
    held_in = ", ".join(f"{name} ({counted(slots, 'slot', 'slots')})" for name, slots in working.items())
    return StillInUse(
        f"Agents still hold runs: {held_in}. `terraslot slots` shows which. Their pools drain: do it again when the "
        "runs are over, or cancel or discard them. `terraslot pool undrain NAME` gives a pool runs again."
    )
