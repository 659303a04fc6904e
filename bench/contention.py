"""Eight processes contend for the slots of 1,000 pods: the slot map, a lock for each slot, and rows of a table.

Nine slots in ten are taken, as in a pool that is about to grow, and each process takes a free one and gives it back,
again and again. The alternatives have their best case: any free slot will do for them, whereas the slot map chooses by
kind and packs. PostgreSQL's commits do not wait for the disk, as Valkey's do not.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import tempfile
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import psycopg
import redis
from redis.lock import Lock

from bench.rows import Row, at_least, share
from tests.store.conftest import PostgresServer
from workers.protocol.kinds import RunKind
from workers.slots.slot_map import SlotMap

PROCESSES = 8
PODS = 1_000
SECONDS = 2.0
POOL = "contended"
PLACES = range(PODS * 3)
TAKEN = len(PLACES) * 9 // 10

_start: Barrier


def measure(url: str, effort: float = 1.0) -> list[Row]:
    processes, seconds = share(effort, PROCESSES), SECONDS * effort
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="bench-pg-", ignore_cleanup_errors=True) as directory:
        postgres = PostgresServer(Path(directory))
        postgres.start()
        try:
            fill_slot_map(url), fill_locks(url), fill_table(directory)
            with context.Pool(processes, _wait_for, [context.Barrier(processes)]) as pool:
                ours, locks, rows = (
                    sum(pool.starmap(_contend, [(side, address, seconds)] * processes, chunksize=1))
                    for side, address in ((use_slot_map, url), (use_locks, url), (use_table, directory))
                )
        finally:
            postgres.stop()
    return [
        Row(f"slots taken and given back by {processes} processes, {PODS:,} pods", ours / seconds, "a second"),
        _faster("a redis-py Lock a slot", ours, locks),
        _faster("PostgreSQL, FOR UPDATE SKIP LOCKED", ours, rows),
    ]


def _faster(than: str, ours: int, theirs: int) -> Row:
    return at_least(f"slot map against {than}", ours / theirs, 1, "times faster")


def _wait_for(barrier: Barrier) -> None:
    global _start  # noqa: PLW0603 - a barrier reaches a pool's processes only while they begin
    _start = barrier


def _contend(side: Callable[[str], Callable[[], None]], address: str, seconds: float) -> int:
    pair = side(address)
    pair()
    _start.wait()
    end, pairs = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        pair()
        pairs += 1
    return pairs


def register(client: redis.Redis, slots: SlotMap, pool: str, pods: int) -> None:
    slots.register("agent-00000", "life")  # first, so that the server has loaded the script
    with client.pipeline(transaction=False) as pipe:
        together = SlotMap(pipe, pool)
        for number in range(1, pods):
            together.register(f"agent-{number:05}", "life")
        pipe.execute()


def fill_slot_map(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        slots = SlotMap(client, POOL)
        register(client, slots, POOL, PODS)
        for number in range(TAKEN):
            slots.acquire(f"run-{number}", RunKind.PLAN, "token")


def use_slot_map(url: str) -> Callable[[], None]:
    slots, run = SlotMap(redis.Redis.from_url(url), POOL), f"run-of-{os.getpid()}"

    def pair() -> None:
        assert slots.acquire(run, RunKind.PLAN, "token")
        slots.release(run, "token")

    return pair


def fill_locks(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.mset({f"lock:{place}": "taken" for place in random.sample(PLACES, TAKEN)})


def use_locks(url: str) -> Callable[[], None]:
    client = redis.Redis.from_url(url)

    def pair() -> None:
        while not (lock := Lock(client, f"lock:{random.choice(PLACES)}", timeout=60)).acquire(blocking=False):
            pass
        lock.release()

    return pair


def fill_table(directory: str) -> None:
    with psycopg.connect(host=directory, user="postgres", autocommit=True) as connection:
        connection.execute("CREATE TABLE slot (id int PRIMARY KEY, run text)")
        connection.execute("CREATE INDEX free ON slot (id) WHERE run IS NULL")
        taken = set(random.sample(PLACES, TAKEN))
        with connection.cursor().copy("COPY slot FROM STDIN") as rows:
            for place in PLACES:
                rows.write_row((place, "taken" if place in taken else None))
        connection.execute("VACUUM ANALYZE slot")


def use_table(directory: str) -> Callable[[], None]:
    connection = psycopg.connect(host=directory, user="postgres", autocommit=True)
    run = f"run-of-{os.getpid()}"
    free = "SELECT id FROM slot WHERE run IS NULL ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"

    def pair() -> None:
        connection.execute(f"UPDATE slot SET run = %s WHERE id = ({free}) RETURNING id", [run])
        connection.execute("UPDATE slot SET run = NULL WHERE run = %s", [run])

    return pair
