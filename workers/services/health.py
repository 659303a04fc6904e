"""Check what a system needs: facts and hints for `terraslot doctor`. Changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING

from workers.protocol import names
from workers.protocol.errors import Unavailable
from workers.protocol.redis_address import RedisAddress
from workers.services.formatting import counted
from workers.services.pools import views as pool_views
from workers.services.system import System
from workers.slots.acl import Users
from workers.slots.redis_server import clock, describe
from workers.slots.report_queue import is_read

if TYPE_CHECKING:
    from redis import Redis

OLDEST_REDIS = (7, 0)  # the first whose ACL restricts a command to some keys (slots/acl.py)
_FULL = 0.8  # of a server's memory: enough is left to act
_APART_SECONDS = 2.0  # of two clocks: far above what NTP leaves, and below every timeout of a pool
_ANSWER_SECONDS = 1.0  # how long workers may take to answer; those of a healthy system need milliseconds


class Verdict(StrEnum):
    """How one thing stands."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found about one thing, and what to do where it is not in order."""

    name: str
    verdict: Verdict
    says: str
    hint: str | None = None


def redis(system: System) -> Finding:
    """Check the server of the slot map: its version, whether it persists, evicts keys, and has memory left."""
    return _server("redis", system.redis, system.settings.redis)


def broker(system: System) -> Finding:
    """Check the server of Celery's queues alike."""
    return _server("broker", system.broker, system.settings.broker)


def _server(name: str, client: Redis, address: RedisAddress) -> Finding:
    server = describe(client)
    version = ".".join(map(str, server.version))
    says = f"{server.kind} {version} at {address.public}, {_mebibytes(server.used)} in use"
    if server.limit:
        says += f" of {_mebibytes(server.limit)}"
    if server.version < OLDEST_REDIS:
        return Finding(name, Verdict.WRONG, says, "Use Redis 7.0 or later, or Valkey.")
    if server.cluster:
        return Finding(name, Verdict.WRONG, f"{says}, a Redis Cluster", "Use one primary, with sentinels if you like.")
    if server.evicts:
        hint = "Set maxmemory-policy to noeviction: a server that is full may evict the slot map."
        return Finding(name, Verdict.WRONG, f"{says}, may evict keys", hint)
    if server.limit and server.used > _FULL * server.limit:
        return Finding(name, Verdict.WARNING, says, "Raise maxmemory: a server that is full takes no run any more.")
    if server.persists is False:
        hint = "Set appendonly to yes, or messages are lost when the server restarts."
        return Finding(name, Verdict.WARNING, f"{says}, not persistent", hint)
    return Finding(name, Verdict.OK, says if server.persists is None else f"{says}, persistent")


def agents_users(system: System) -> Finding:
    """Check whether each pool can have a Redis user of its own."""
    if shared := system.settings.shared_agent_username:
        hint = "One pool's agents can do to another pool what they like. Use a server that administers users."
        return Finding("users", Verdict.WARNING, f"the agents of all pools share the Redis user {shared}", hint)
    try:
        for client in system.servers:
            Users(client).check()
    except Unavailable as error:
        return Finding("users", Verdict.WRONG, "pools can have no Redis users of their own", str(error))
    return Finding("users", Verdict.OK, "every pool has Redis users of its own")


def clocks(system: System) -> Finding:
    """Compare the clocks that this system reads: of its servers, and of this machine."""
    readings: dict[str, Callable[[], float | None]] = {
        "Redis": partial(clock, system.redis),
        "the database": system.database.clock,
    }
    readings |= {f"the cluster of {kind} pools": backend.clock for kind, backend in system.backends.items()}
    apart = {name: found - time.time() for name, read in readings.items() if (found := read()) is not None}
    wrong = [f"{name} is {ahead:+.1f} s" for name, ahead in apart.items() if abs(ahead) > _APART_SECONDS]
    if wrong:
        hint = "Let NTP set the clocks: certificates are judged by them, and people compare the times that they show."
        return Finding("clocks", Verdict.WARNING, f"{', '.join(wrong)} from this machine", hint)
    return Finding("clocks", Verdict.OK, f"{' and '.join(apart)} agree with this machine")


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"


def database(system: System) -> Finding:
    """Check whether the database answers, has the tables of this version, and a pool."""
    count = len(system.pool_names())
    says = f"{system.database}, {counted(count, 'pool')}"
    if not count:
        hint = "Start the system with `terraslot up`: it creates a pool."
        if system.settings.in_cluster:
            hint = "Describe a pool under `pools` in the chart's values, or use `terraslot pool create`."
        return Finding("database", Verdict.WRONG, says, hint)
    return Finding("database", Verdict.OK, says)


def workers(system: System) -> Finding:
    """Check whether workers consume each queue of the control plane."""
    answers = system.celery.control.inspect(timeout=_ANSWER_SECONDS).active_queues() or {}
    consumed = {queue["name"] for queues in answers.values() for queue in queues}
    missing = [f"consumes {queue}" for queue in (*names.REQUEST_QUEUES, names.CLUSTER_QUEUE) if queue not in consumed]
    missing += [] if is_read(system.redis) else ["reads reports"]
    if missing:
        hint = "Start the system with `terraslot up`, or celery -A workers worker and python -m workers.reports."
        if system.settings.in_cluster:
            hint = "Look at the Deployments of the release: `kubectl get deployments`, and the logs of those not ready."
        return Finding("workers", Verdict.WRONG, f"no worker {' or '.join(missing)}", hint)
    return Finding("workers", Verdict.OK, f"{len(answers)} answer: {', '.join(sorted(answers))}")


def agents(system: System) -> Finding:
    """Check the agents of all pools, and the problems in the status of the pools."""
    found = pool_views.every(system)
    all_agents = [agent for pool in found for agent in pool.agents]
    silent = [agent.name for agent in all_agents if agent.state == "silent"]
    problems = [f"{pool.name}: {pool.status_message}" for pool in found if pool.status_message]
    if silent:
        hint = "They send no heartbeat; their pods are deleted and replaced when that goes on."
        return Finding("agents", Verdict.WARNING, "; ".join([f"silent: {', '.join(silent)}", *problems]), hint)
    if problems:
        return Finding("agents", Verdict.WARNING, "; ".join(problems), "Look at `terraslot pool show NAME`.")
    says = f"{len(all_agents)} registered" if all_agents else "none; they are started when a run waits"
    return Finding("agents", Verdict.OK, says)
