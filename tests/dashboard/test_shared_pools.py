"""However many browsers look, the pools are read once a second."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.waiting import eventually
from workers.dashboard.shared_pools import SharedPools
from workers.protocol.errors import Unavailable
from workers.services.pools import views


class Reading:
    """Stands for the reading of all pools: it waits for the test where it is told to, and counts."""

    def __init__(self) -> None:
        self.times = 0
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.error: Exception | None = None

    def __call__(self, _system: object) -> list[str]:
        self.times += 1
        assert self.goes_on.wait(60)
        if self.error:
            raise self.error
        return [f"reading {self.times}"]


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Reading:
    reading = Reading()
    monkeypatch.setattr(views, "every", reading)
    return reading


def test_many_who_look_at_once_share_one_reading(reading: Reading) -> None:
    pools = SharedPools(None)
    reading.goes_on.clear()
    with ThreadPoolExecutor(8) as threads:
        looks = [threads.submit(pools.every) for _ in range(8)]
        eventually(lambda: reading.times)
        reading.goes_on.set()
    assert {tuple(look.result()) for look in looks} == {("reading 1",)}


def test_what_was_read_is_old_after_a_second(reading: Reading) -> None:
    now = [100.0]
    pools = SharedPools(None, clock=lambda: now[0])
    assert pools.every() == pools.every() == ["reading 1"]
    now[0] += 0.9
    assert pools.every() == ["reading 1"]
    now[0] += 0.2
    assert pools.every() == ["reading 2"]


def test_an_outage_is_told_to_all_who_waited_and_the_pools_are_read_again_after_a_second(reading: Reading) -> None:
    now = [100.0]
    pools = SharedPools(None, clock=lambda: now[0])
    reading.error = Unavailable("away")
    for _ in range(2):
        with pytest.raises(Unavailable, match="away"):
            pools.every()
    assert reading.times == 1
    reading.error = None
    now[0] += 1.1
    assert pools.every() == ["reading 2"]
