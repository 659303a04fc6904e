"""What monitors of Celery are told of agents: worker events, as the slot map sees each of them.

The control plane sends them: a pool's cycle for all of its agents, and whoever takes the report of one that comes or
goes. Agents have no right to the channel, so none can speak for another. The last cycles of a pool say how long a
heartbeat counts; where none comes any more, a monitor shows its agents as offline.
"""

from collections.abc import Sequence
from typing import Any

from workers.protocol import names
from workers.protocol.leases import SLOTS_PER_AGENT, AgentRecord, SlotState
from workers.services.system import System

# Celery counts a worker as offline when it was not heard for twice the time that it names: for four cycles here.
_CYCLES = 2


def seen(system: System, pool: str, agents: Sequence[AgentRecord]) -> None:
    """Tell how the agents of a pool are."""
    system.events.send(lambda: [_seen(system, pool, agent) for agent in agents])


def came(system: System, pool: str, agent: AgentRecord) -> None:
    """Tell that an agent has registered."""
    system.events.send(lambda: [_seen(system, pool, agent) | {"type": "worker-online"}])


def gone(system: System, pool: str, agent: str) -> None:
    """Tell that an agent is no more."""
    system.events.send(lambda: [{"type": "worker-offline", "hostname": names.node_name(pool, agent)}])


def _seen(system: System, pool: str, agent: AgentRecord) -> dict[str, Any]:
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
        "sw_ident": "terraslot-agent",
        "sw_ver": f"protocol {agent.protocol}",
    }
