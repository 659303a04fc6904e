"""Why a pool has as many agents as it has, as a table of facts and sentences."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.core.pool_size import size_reason
from workers.core.pools import PoolLimits
from workers.core.waiting import Outlook, PoolSituation
from workers.protocol.kinds import RunKind
from workers.protocol.leases import AgentRecord, PoolStats

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
SEEN = Outlook(0, 1, None, NOW + timedelta(minutes=1))
FULL, EMPTY, IDLE = PoolStats(1, 1, 3, 0, 0, 0), PoolStats(0, 0, 0, 0, 0, 0), PoolStats(1, 1, 0, 0, 1, 2)
BUSY = PoolSituation(3, draining=False, stats=FULL, outlook=SEEN)
RESTS = AgentRecord("a", "2.i", False, False, 0.0, 0.0, 1.0, ())
ONE_WAITS = {RunKind.PLAN: 0, RunKind.PLAN_AND_APPLY: 1}
FAILED = (NOW.timestamp() - 2,)


@pytest.mark.parametrize(
    ("pool", "waiting", "failures", "said"),
    [
        (BUSY, {}, (), "no run lacks a slot, and no agent is idle"),
        (replace(BUSY, stats=IDLE, agents=[RESTS]), ONE_WAITS, (), "idle for 360 s may be removed"),
        (replace(BUSY, stats=EMPTY), {}, (), "no run lacks a slot, and no agent is needed"),
        (replace(BUSY, maximum=1), ONE_WAITS, (), "at its maximum of 1 agent, and 1 run waits for a slot"),
        (BUSY, {RunKind.PLAN: 2}, (), "2 runs wait for slots; agents are added in a moment"),
        (BUSY, ONE_WAITS, FAILED, "1 run waits for a slot; pods failed to start, and the next is tried at 03:04:08"),
        (
            replace(BUSY, outlook=replace(SEEN, blocked="the quota refuses another pod")), ONE_WAITS, FAILED,
            "tried at 03:04:08 UTC; the quota refuses another pod",
        ),
        (
            replace(BUSY, outlook=replace(SEEN, blocked="the quota refuses another pod")), ONE_WAITS, (),
            "1 run waits for a slot; the quota refuses another pod",
        ),
        (replace(BUSY, outlook=replace(SEEN, starting=1)), ONE_WAITS, (), "a slot; 1 pod is starting"),
        (replace(BUSY, outlook=replace(SEEN, starting=2)), {}, (), "no run lacks a slot; 2 pods are starting"),
        (replace(BUSY, draining=True), ONE_WAITS, (), "it drains"),
        (replace(BUSY, outlook=None), ONE_WAITS, (), "no cycle has looked at it yet"),
        (replace(BUSY, outlook=replace(SEEN, due=NOW - timedelta(seconds=1))), {}, (), "no cycle of the pool"),
    ],
)  # fmt: skip
def test_the_reason_that_holds_first_is_told(
    pool: PoolSituation, waiting: dict[RunKind, int], failures: tuple[float, ...], said: str
) -> None:
    assert said in size_reason(pool, PoolLimits(max_agents=pool.maximum), waiting, failures, NOW)


def test_a_minimum_that_is_reached_and_one_that_is_not() -> None:
    limits = PoolLimits(min_agents=1)
    assert "at its minimum of 1 agent" in size_reason(BUSY, limits, {}, (), NOW)
    assert "fewer agents than its minimum" in size_reason(replace(BUSY, stats=EMPTY), limits, {}, (), NOW)


def test_a_pool_whose_pods_a_deployment_runs_says_so() -> None:
    assert "the Deployment old" in size_reason(BUSY, PoolLimits(), ONE_WAITS, (), NOW, deployment="old")


_counts = st.integers(0, 5)


@given(
    st.builds(PoolStats, _counts, _counts, _counts, _counts, _counts, _counts),
    st.builds(Outlook, _counts, _counts, st.none(), st.just(NOW)),
    st.dictionaries(st.sampled_from(RunKind), _counts),
    st.lists(st.floats(NOW.timestamp() - 900, NOW.timestamp())),
)
def test_it_is_one_line_and_never_at_its_maximum_below_it(
    stats: PoolStats, outlook: Outlook, waiting: dict[RunKind, int], failures: list[float]
) -> None:
    pool = PoolSituation(4, draining=False, stats=stats, outlook=outlook)
    said = size_reason(pool, PoolLimits(max_agents=4), waiting, tuple(failures), NOW)
    assert said
    assert "\n" not in said
    if "maximum" in said:
        assert stats.available + outlook.still_starting(stats.available) >= 4
        assert any(waiting.values())
