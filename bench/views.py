"""What it costs to look at 51 pools, as the slot page, the metrics and ``terraslot top`` do, once a second for all."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.connection import AbstractConnection
from sqlalchemy import Engine, event

from bench.rows import Row, at_most, share, table
from tests.valkey_server import running_valkey
from workers.app import build_app
from workers.protocol.encryption import new_key
from workers.protocol.kinds import RunKind
from workers.services.pools import manage, views
from workers.services.system import System, build
from workers.settings import Settings
from workers.specs.pools import PoolSpec

POOLS, AGENTS = 51, 4
LOOKS = 30


@dataclass
class Cost:
    """What looks have cost. ``statements`` without the begin and end of their transaction."""

    statements: int = 0
    round_trips: int = 0


def measure(effort: float = 1.0) -> list[Row]:
    with (
        tempfile.TemporaryDirectory(prefix="terraslot-bench-") as home,
        running_valkey() as url,
        _system(home, url) as system,
    ):
        pools = share(effort, POOLS)
        for number in range(pools):
            _fill(system, f"pool-{number:02}")
        views.every(system)  # connections are open, and the server knows the verbs
        with _counted() as cost:
            assert len(views.every(system)) == pools
        seconds = [_look(system) for _ in range(share(effort, LOOKS))]
    return [
        at_most(f"/slots of {pools} pools: statements", cost.statements, 6, "statements"),
        at_most(f"/slots of {pools} pools: round trips to Redis", cost.round_trips, 1, "round trips"),
        at_most(f"/slots of {pools} pools: median", 1000 * statistics.median(seconds), 30, "ms"),
    ]


def _look(system: System) -> float:
    began = time.perf_counter()
    views.every(system)
    return time.perf_counter() - began


def _fill(system: System, pool: str) -> None:
    """Make a pool with some agents, of which one holds a run that nobody has on record."""
    manage.ensure(system, PoolSpec(name=pool))
    slots = system.slots(pool)
    for number in range(AGENTS):
        slots.register(f"{pool}-{number}", "life-1")
    slots.acquire(f"{pool}-run", RunKind.PLAN, "token")


@contextmanager
def _system(home: str, url: str) -> Iterator[System]:
    settings = Settings(home=Path(home), redis_url=url, broker_url="", database_url="", encryption_keys=new_key())
    system = build(settings, build_app("bench", [], [], settings))
    system.database.migrate()
    yield system
    system.database.dispose()
    system.redis.close()
    system.celery.close()


@contextmanager
def _counted() -> Iterator[Cost]:
    cost, send = Cost(), AbstractConnection.send_packed_command

    def sent(connection: Any, *arguments: Any, **options: Any) -> None:
        cost.round_trips += 1
        send(connection, *arguments, **options)

    def executed(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        cost.statements += not statement.startswith("BEGIN")

    event.listen(Engine, "before_cursor_execute", executed)
    AbstractConnection.send_packed_command = sent
    try:
        yield cost
    finally:
        AbstractConnection.send_packed_command = send
        event.remove(Engine, "before_cursor_execute", executed)


if __name__ == "__main__":
    print(table(measure()))
