"""A cycle that was slower than its lock changes nothing after another one has begun."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.services.conftest import POOL, ControlPlane
from workers.core.pools import PoolLimits
from workers.services.pool_state import PodSnapshot, pool_lock
from workers.services.pools import manage as pools
from workers.services.scaling import scale
from workers.services.scaling.cycle import cycle
from workers.slots.locks import LockLost
from workers.store import pools as stored_pools

LOCK = f"ts:{{{POOL}}}:lock:cycle"
MAX = 12


@pytest.fixture
def pool(control: ControlPlane) -> ControlPlane:
    """A pool whose minimum is its maximum."""
    limits = PoolLimits(min_agents=MAX, max_agents=MAX, idle_timeout=0)
    pools.update(control.system, control.spec().model_copy(update={"limits": limits}))
    return control


def meanwhile(
    monkeypatch: pytest.MonkeyPatch, of: type[Any], method: str, do: Callable[[], object], *, calls: int = 1
) -> None:
    """Do something before the ``calls``-th call of a method, as if that call had come later."""
    real, seen = getattr(of, method), []

    def late(self: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(method)
        if len(seen) == calls:
            do()
        return real(self, *arguments, **options)

    monkeypatch.setattr(of, method, late)


def another_cycle(control: ControlPlane) -> Callable[[], None]:
    def look() -> None:
        control.redis.delete(LOCK)  # it has expired
        with ThreadPoolExecutor(1) as another:
            assert another.submit(cycle, control.system, POOL).result()

    return look


def test_a_slow_cycle_creates_nothing_beside_what_another_has_created(
    pool: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile(monkeypatch, PodSnapshot, "create", another_cycle(pool))
    with pytest.raises(LockLost):
        cycle(pool.system, POOL)
    assert len(pool.pods.pods) == MAX


def test_a_cycle_that_loses_its_lock_between_its_creations_ends_there(
    pool: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    created: list[int] = []
    create = type(pool.pods).create_all

    def slow(self: Any, spec: Any, names: Sequence[str]) -> Any:
        failures = create(self, spec, names)
        created.append(len(names))
        if len(created) == 1:
            another_cycle(pool)()
        return failures

    monkeypatch.setattr(type(pool.pods), "create_all", slow)
    with pytest.raises(LockLost):
        cycle(pool.system, POOL)
    assert len(pool.pods.pods) == MAX == sum(created)


def test_a_slow_cycle_performs_no_action_that_it_decided_on_before_it_lost_its_lock(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = control.agent()
    control.pods.pods.clear()  # so that reconcile is to deregister the agent
    seen: list[str] = []
    monkeypatch.setattr("workers.services.scaling.reconcile.perform", lambda *_: seen.append("performed"))
    monkeypatch.setattr("workers.core.reconcile.reconcile", lambda *_: control.redis.delete(LOCK) and ["action"])
    with pytest.raises(LockLost):
        cycle(control.system, POOL)
    assert not seen
    assert control.slots.agent(agent.name) is not None


def test_a_cycle_that_lost_its_lock_leaves_the_status_of_the_pool(
    pool: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile(monkeypatch, PodSnapshot, "create", another_cycle(pool))
    with pytest.raises(LockLost):
        cycle(pool.system, POOL)
    with pool.system.database.read() as session:
        assert "expired" not in (stored_pools.status(session, POOL) or "")


def test_scaling_by_hand_ends_where_it_lost_its_lock(pool: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    meanwhile(monkeypatch, PodSnapshot, "create", another_cycle(pool))
    with pytest.raises(LockLost, match="another process may hold it"):
        scale.scale_now(pool.system, POOL, MAX)
    assert len(pool.pods.pods) == MAX


def test_a_lock_that_is_renewed_is_held_however_long_the_work_takes(pool: ControlPlane) -> None:
    with pool_lock(pool.system, POOL):
        pool.redis.pexpire(LOCK, 500)
        PodSnapshot(pool.system, pool.spec()).create(["default-1"])
        assert pool.redis.pttl(LOCK) > 10_000
        assert not cycle(pool.system, POOL)
