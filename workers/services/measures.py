"""What of the whole system is true at this moment and worth an alert, beside what is shown of each pool."""

from dataclasses import dataclass
from datetime import datetime

from workers.protocol import names
from workers.services.runs.deliver import OVERDUE
from workers.services.system import System
from workers.slots.keys import PoolKeys
from workers.slots.redis_server import lengths, memory
from workers.store import measures
from workers.store.measures import Waiting

_SEPARATOR = "\x06\x16"  # between a queue's name and a priority, as kombu has it
_QUEUES = (*names.REQUEST_QUEUES, names.CLUSTER_QUEUE)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that a server uses, and may use; 0 for any number."""

    used: int
    limit: int


@dataclass(frozen=True, slots=True)
class Measures:
    """What waits where, what was not delivered, and how full the servers are.

    ``messages``: by queue, those that no worker has taken; ``reports``: by pool, those that no reader has taken.
    """

    now: datetime
    waiting: tuple[Waiting, ...]
    undelivered: int
    unsettled_states: int
    messages: dict[str, int]
    reports: dict[str, int]
    memory: dict[str, Memory]


def measure(system: System) -> Measures:
    """Read everything once: four statements, and two round trips. Raises what the servers raise."""
    now, pools = system.now(), system.pool_names()
    with system.database.read() as session:
        waiting = tuple(measures.waiting(session))
        undelivered = measures.undelivered(session, now - OVERDUE)
        states = measures.unsettled_states(session)
    servers = {"redis": system.redis} | ({"broker": system.broker} if system.broker is not system.redis else {})
    return Measures(
        now=now,
        waiting=waiting,
        undelivered=undelivered,
        unsettled_states=states,
        messages=lengths(system.broker, {queue: _keys(queue) for queue in _QUEUES}),
        reports=lengths(system.redis, {pool: [PoolKeys(pool).reports] for pool in pools}),
        memory={name: Memory(*memory(client)) for name, client in servers.items()},
    )


def _keys(queue: str) -> list[str]:
    """Return the keys of a queue of Celery's: one for each priority that a sender may choose."""
    return [queue, *(f"{queue}{_SEPARATOR}{priority}" for priority in range(1, 10))]
