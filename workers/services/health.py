"""Check what a system needs: facts and hints for `terraslot doctor`. Changes nothing."""

from dataclasses import dataclass
from enum import StrEnum

from workers.protocol import names
from workers.services.formatting import counted
from workers.services.pools import views as pool_views
from workers.services.system import System
from workers.slots.redis_server import describe, without_password

OLDEST_REDIS = (6, 2)  # the first whose ACL restricts channels (slots/acl.py)
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
    """Check the server of the slot map: its version, whether it persists, whether it may evict keys."""
    server = describe(system.redis)
    version = ".".join(map(str, server.version))
    says = f"{server.kind} {version} at {without_password(system.settings.redis_url)}"
    if server.version < OLDEST_REDIS:
        return Finding("redis", Verdict.WRONG, says, "Use Redis 6.2 or later, or Valkey.")
    if server.evicts:
        hint = "Set maxmemory-policy to noeviction: a server that is full may evict the slot map."
        return Finding("redis", Verdict.WRONG, f"{says}, may evict keys", hint)
    if server.persists is False:
        hint = "Set appendonly to yes, or messages are lost when the server restarts."
        return Finding("redis", Verdict.WARNING, f"{says}, not persistent", hint)
    return Finding("redis", Verdict.OK, says if server.persists is None else f"{says}, persistent")


def database(system: System) -> Finding:
    """Check whether the database answers, has the tables of this version, and a pool."""
    count = len(system.pools())
    says = f"{system.database}, {counted(count, 'pool')}"
    if not count:
        return Finding("database", Verdict.WRONG, says, "Start the system with `terraslot up`: it creates a pool.")
    return Finding("database", Verdict.OK, says)


def workers(system: System) -> Finding:
    """Check whether workers consume each queue of the control plane."""
    answers = system.celery.control.inspect(timeout=_ANSWER_SECONDS).active_queues() or {}
    consumed = {queue["name"] for queues in answers.values() for queue in queues}
    missing = [
        queue for queue in (names.SUBMIT_QUEUE, names.CONTROL_QUEUE, names.REPORTS_QUEUE) if queue not in consumed
    ]
    if missing:
        hint = "Start the system with `terraslot up`, or the workers: celery -A workers worker, and -A workers.reports."
        return Finding("workers", Verdict.WRONG, f"no worker consumes {', '.join(missing)}", hint)
    return Finding("workers", Verdict.OK, f"{len(answers)} answer: {', '.join(sorted(answers))}")


def agents(system: System) -> Finding:
    """Check the agents of all pools, and the problems in the status of the pools."""
    found = pool_views.every(system)
    all_agents = [agent for pool in found for agent in pool.agents]
    silent = [agent.name for agent in all_agents if agent.state == "silent"]
    problems = [f"{pool.name}: {pool.status_message}" for pool in found if pool.status_message]
    if silent:
        hint = "They send no heartbeat; their pods are deleted and replaced when that goes on."
        return Finding("agents", Verdict.WARNING, f"silent: {', '.join(silent)}", hint)
    if problems:
        return Finding("agents", Verdict.WARNING, "; ".join(problems), "Look at `terraslot pool show NAME`.")
    says = f"{len(all_agents)} registered" if all_agents else "none; they are started when a run waits"
    return Finding("agents", Verdict.OK, says)
