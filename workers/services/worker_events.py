"""What monitors of Celery are told of agents: worker events, as the slot map sees each of them.

The control plane sends them: a pool's cycle for all of its agents, and whoever takes the report of one that comes or
goes. Agents have no right to the channel, so none can speak for another. The last cycles of a pool say how long a
heartbeat counts; where none comes any more, a monitor shows its agents as offline.
"""

from collections.abc import Sequence
from typing import Any

from workers.protocol import names
from workers.protocol.errors import Damaged
from workers.protocol.leases import SLOTS_PER_AGENT, AgentRecord, SlotState
from workers.services.system import System
from workers.slots.slot_map import snapshots

AGENT = "terraslot-agent"
# Celery counts a worker as offline when it was not heard for twice the time that it names: for four cycles here.
_CYCLES = 2


def seen(system: System, pool: str, agents: Sequence[AgentRecord]) -> None:
    """Tell how the agents of a pool are."""
    system.events.send(lambda: [standing(system, pool, agent) for agent in agents])


def came(system: System, pool: str, agent: AgentRecord) -> None:
    """Tell that an agent has registered."""
    system.events.send(lambda: [standing(system, pool, agent) | {"type": "worker-online"}])


def gone(system: System, pool: str, agent: str) -> None:
    """Tell that an agent is no more."""
    system.events.send(lambda: [{"type": "worker-offline", "hostname": names.node_name(pool, agent)}])


def every(system: System) -> dict[str, tuple[str, AgentRecord]]:
    """Return all agents, each with its pool, by the names of their workers; those of pools that can be read."""
    pools = snapshots(system.redis, system.pool_names())
    readable = {pool: agents for pool, agents in pools.items() if not isinstance(agents, Damaged)}
    return {names.node_name(pool, agent.name): (pool, agent) for pool, agents in readable.items() for agent in agents}


def standing(system: System, pool: str, agent: AgentRecord) -> dict[str, Any]:
    """Return the event that tells how an agent is."""
    states = [lease.state for lease in agent.leases]
    return {
        "type": "worker-offline" if agent.silent else "worker-heartbeat",
        "hostname": names.node_name(pool, agent.name),
        "freq": _CYCLES * system.settings.cycle_seconds,
        "active": states.count(SlotState.RUNNING),
        "reserved": states.count(SlotState.RESERVED),
        "slots": SLOTS_PER_AGENT,
        "pool": pool,
        "draining": agent.draining,
        "programs": [str(program) for program in agent.programs],
        "sw_ident": AGENT,
        "sw_ver": f"protocol {agent.protocol}",
    }
