"""What holds of the slot map after every step, read from the server's keys."""

from __future__ import annotations

import redis

from workers.protocol.kinds import RunKind
from workers.protocol.leases import AgentRecord, PoolStats, SlotState
from workers.slots.slot_map import SlotMap

POOL = "pool"
BUSY = 10**12


def check(client: redis.Redis, slots: SlotMap) -> None:
    """Fail unless every index and count of the pool is what its records say."""
    agents = slots.snapshot()
    leases = [lease for agent in agents for lease in agent.leases]

    assert all(lease.agent == agent.name for agent in agents for lease in agent.leases)
    assert all(len({lease.slot for lease in agent.leases}) == len(agent.leases) for agent in agents)
    assert len({lease.run for lease in leases}) == len(leases), "a run holds more than one slot"
    assert all(lease.kind is RunKind.PLAN for lease in leases if lease.slot != 0)
    assert all((lease.until is not None) is (lease.state is SlotState.RESERVED) for lease in leases)

    assert _scores(client, "room") == {agent.name: room(agent) for agent in agents}
    assert _scores(client, "reserved") == {lease.run: lease.until for lease in leases if lease.until is not None}
    assert _scores(client, "heartbeats") == {agent.name: agent.heartbeat_at for agent in agents}
    kept = _hash(client, "leases")
    assert {field: run for field, run in kept.items() if "/" in field} == {
        f"{lease.agent}/{lease.slot}": lease.run for lease in leases
    }
    assert {field for field in kept if "/" not in field} == {lease.run for lease in leases}

    assert slots.stats() == PoolStats.of(agents)
    assert slots.repair() == [], "what the verbs have written is whole"
    known = ("leases", "room", "reserved", "agents", "heartbeats", "watch")
    assert set(client.scan_iter(key("*"))) <= {key(name) for name in known}


def key(name: str) -> bytes:
    return f"ts:{{{POOL}}}:{name}".encode()


def room(agent: AgentRecord) -> float:
    """The place of an agent in the index of free slots: negative if it accepts no runs."""
    weights = sum({0: 4, 1: 1, 2: 2}[lease.slot] for lease in agent.leases)
    score = BUSY + weights if agent.idle_since is None else agent.idle_since
    return score if agent.available else -score


def _hash(client: redis.Redis, name: str) -> dict[str, str]:
    return {field.decode(): value.decode() for field, value in client.hgetall(key(name)).items()}


def _scores(client: redis.Redis, name: str) -> dict[str, float]:
    return {member.decode(): score for member, score in client.zrange(key(name), 0, -1, withscores=True)}
