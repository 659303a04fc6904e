"""What Flower shows of one agent as a worker: what the slot map knows, in the form of an answer to its inspection."""

import time
from datetime import UTC, datetime
from typing import Any

from workers.protocol import names
from workers.protocol.kinds import RunKind
from workers.protocol.leases import SLOTS_PER_AGENT, AgentRecord, Lease, SlotState

_TASKS = {RunKind.PLAN: names.PLAN, RunKind.PLAN_AND_APPLY: names.PLAN_AND_APPLY}
_MARK = "terraslot agent"


def is_agent(inspected: dict[str, Any]) -> bool:
    """Whether what Flower has inspected is an agent."""
    return bool(inspected.get("stats", {}).get("pool", {}).get("implementation") == _MARK)


def details(pool: str, agent: AgentRecord) -> dict[str, Any]:
    """Return what Flower shows on the page of an agent."""
    # Its queue is left out: Flower would ask for the length of every agent's, on each look at the broker's page.
    return {
        "stats": {
            "pool": {"implementation": _MARK, "pool": pool, "max-concurrency": SLOTS_PER_AGENT},
            "total": {},
            "broker": {},
            "agent": agent.name,
            "state": agent.state,
            "protocol": agent.protocol,
            "programs": ", ".join(map(str, agent.programs)),
            "registered": _moment(agent.registered_at),
            "heartbeat": _moment(agent.heartbeat_at),
        },
        "active": [_task(lease) for lease in agent.leases if lease.state is SlotState.RUNNING],
        "reserved": [_task(lease) for lease in agent.leases if lease.state is SlotState.RESERVED],
        "active_queues": [], "registered": [], "scheduled": [], "revoked": [], "conf": {}, "timestamp": time.time(),
    }  # fmt: skip


def _task(lease: Lease) -> dict[str, Any]:
    shown = {"slot": lease.slot, "since": _moment(lease.since)}
    return {
        "name": _TASKS[lease.kind], "id": lease.run, "args": "", "kwargs": str(shown), "acknowledged": True,
        "worker_pid": None,
    }  # fmt: skip


def _moment(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="seconds")
