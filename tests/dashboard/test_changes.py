"""The stream of changes: what one reader finds out, and what listeners are told of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.dashboard.conftest import Live
from tests.dashboard.test_dashboard import POOL, close, populated
from tests.valkey_server import running_valkey
from workers.dashboard.changes import EVERYTHING, Change, Changes, Reader
from workers.dashboard.shared_pools import SharedPools
from workers.services.runs import decide
from workers.services.system import System
from workers.store import pools as stored_pools


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    with running_valkey() as redis_url:
        found = populated(tmp_path, redis_url)
        yield found
        close(found)


class Clock:
    """Each look is a second after the one before, so that no reading is shared."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        self._now += 10
        return self._now


def test_a_look_tells_which_runs_and_pools_have_changed_since_the_last_one(system: System) -> None:
    reader = Reader(system, SharedPools(system, Clock()))
    assert reader.look() == EVERYTHING
    assert reader.look() == Change()
    system.slots(POOL).heartbeat("default-1", "life-1", executing=(), reporting=())
    assert reader.look() == Change()  # a heartbeat is no news
    decide.cancel(system, "run-2")
    assert reader.look() == Change(frozenset({"run-2"}), frozenset({POOL}))
    with system.database.begin() as session:
        stored_pools.set_status(session, POOL, "other words", system.now())
    assert reader.look() == Change(pools=frozenset({POOL}))


def test_an_outage_is_told_as_long_as_it_lasts_and_its_end_is_everything(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader(system, SharedPools(system, Clock()))
    reader.look()
    with monkeypatch.context() as outage:
        outage.setattr(type(system.database), "read", _no_database)
        assert [bool(reader.look().problem) for _ in range(2)] == [True, True]
    assert reader.look() == EVERYTHING


def _no_database(_: object) -> None:
    raise ConnectionRefusedError("no database")


def test_changes_that_a_slow_page_has_not_taken_become_one() -> None:
    first, second = Change(frozenset({"a"})), Change(frozenset({"b"}), frozenset({"p"}))
    assert first | second == Change(frozenset({"a", "b"}), frozenset({"p"}))
    assert first | Change(problem="down") | EVERYTHING == EVERYTHING
    many = Change(frozenset(str(number) for number in range(201)))
    assert (first | many) == EVERYTHING


async def _heard(listening: int) -> tuple[list[list[Change]], int]:
    looks = iter([EVERYTHING, *(Change(frozenset({str(number)})) for number in range(100))])
    looked = 0

    def look() -> Change:
        nonlocal looked
        looked += 1
        return next(looks)

    changes = Changes(look, pause=0.01)

    async def listen() -> list[Change]:
        heard = []
        async for change in changes.listen():
            heard.append(change)
            if len(heard) == 3:
                break
        return heard

    async with asyncio.timeout(20):
        return await asyncio.gather(*(listen() for _ in range(listening))), looked


def test_one_reader_serves_all_listeners() -> None:
    heard, looked = asyncio.run(_heard(20))
    assert all(changes[0] == EVERYTHING for changes in heard)
    assert looked < 10


def test_a_look_that_fails_is_told_and_others_follow_it() -> None:
    looks: Iterator[Change | Exception] = iter([EVERYTHING, RuntimeError("a fault"), Change(frozenset({"run"}))])

    def look() -> Change:
        found = next(looks)
        if isinstance(found, Exception):
            raise found
        return found

    async def hear() -> list[Change]:
        heard: list[Change] = []
        async with asyncio.timeout(20), aclosing(Changes(look, pause=0.01).listen()) as changes:
            async for change in changes:
                heard.append(change)
                if change.runs:
                    return heard
        return heard

    *_, problem, after = asyncio.run(hear())
    assert problem.problem is not None
    assert after == Change(frozenset({"run"}))


def test_the_stream_is_for_those_who_may_look(live: Live) -> None:
    assert live.nobody.get("/changes").status == 401
    connection = HTTPConnection("127.0.0.1", live.port, timeout=20)
    try:
        connection.request("GET", "/api/v1/changes", headers=live.ada.headers)
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream")
        assert b'"everything": true' in answer.readline()
    finally:
        connection.close()
