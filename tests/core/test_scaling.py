"""Scaling decisions, as a table of facts and what follows from them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from workers.core.pools import PoolLimits
from workers.core.scaling import PoolFacts, ScalingReason, back_off_until, decide

NOW = 10_000.0
LIMITS = PoolLimits(min_agents=0, max_agents=5, idle_timeout=60)
LONG_IDLE, JUST_IDLE = NOW - 61, NOW - 1
R = ScalingReason


def ready(agents: int, *, applies: int = 0, plans: int = 0, reserved: int = 0, **facts: object) -> PoolFacts:
    """Facts of a pool with ``ready`` agents, of whose slots ``used`` are taken."""
    return PoolFacts(
        ready=agents,
        free_apply=agents - applies - reserved,
        free_plan_only=2 * agents - plans,
        used=applies + plans + reserved,
        reserved=reserved,
        **facts,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("facts", "limits", "desired", "reason"),
    [
        pytest.param(ready(0), {"min_agents": 2}, 2, R.BELOW_MINIMUM, id="fills up to the minimum at once"),
        pytest.param(ready(1, starting=1), {"min_agents": 2}, 2, R.STEADY, id="a starting pod counts (F5)"),
        pytest.param(ready(0, pending_plans=1), {}, 1, R.COLD_START, id="cold start for a plan"),
        pytest.param(ready(0, pending_applies=1), {}, 1, R.COLD_START, id="cold start for an apply"),
        pytest.param(ready(0, pending_plans=50), {"step": 3}, 3, R.COLD_START, id="a burst starts a step's worth"),
        pytest.param(ready(0, pending_plans=2), {"step": 3}, 1, R.COLD_START, id="one pod is enough for two plans"),
        pytest.param(ready(0, pending_plans=8), {}, 3, R.COLD_START, id="one decision adds what is needed"),
        pytest.param(ready(1, applies=1, pending_applies=7), {}, 5, R.APPLIES_WAIT, id="and not above the maximum"),
        pytest.param(
            ready(0, pending_applies=2, pending_plans=6), {}, 3, R.COLD_START, id="a slot counts once"
        ),
        pytest.param(ready(0, starting=1, pending_applies=1), {}, 1, R.STEADY, id="a cold start is not repeated"),
        pytest.param(ready(3, reserved=3, pending_applies=1), {}, 4, R.APPLIES_WAIT, id="scarcer kind seen (F32)"),
        pytest.param(ready(1, plans=2, applies=1, pending_plans=1), {}, 2, R.PLANS_WAIT, id="plans wait"),
        pytest.param(ready(1, plans=2, pending_plans=1), {}, 1, R.STEADY, id="a plan may take slot 0"),
        pytest.param(
            ready(1, plans=2, pending_plans=1, pending_applies=1), {}, 2, R.PLANS_WAIT, id="slot 0 counts once"
        ),
        pytest.param(ready(1, plans=2, applies=1), {}, 2, R.HIGH_UTILISATION, id="S22: 100 % adds one"),
        pytest.param(ready(2, plans=3, applies=1), {}, 2, R.STEADY, id="67 % is fine"),
        pytest.param(ready(5, plans=10, applies=5), {}, 5, R.HIGH_UTILISATION, id="never above the maximum"),
        pytest.param(ready(6, plans=12, applies=6), {}, 5, R.ABOVE_MAXIMUM, id="a lowered maximum is followed"),
        pytest.param(ready(2, idle_since=(LONG_IDLE, JUST_IDLE)), {}, 1, R.LOW_UTILISATION, id="S22: 0 % removes one"),
        pytest.param(ready(1, idle_since=(LONG_IDLE,)), {}, 0, R.LOW_UTILISATION, id="down to zero"),
        pytest.param(ready(1, idle_since=(LONG_IDLE,)), {"min_agents": 1}, 1, R.STEADY, id="never below the minimum"),
        pytest.param(ready(2, idle_since=(JUST_IDLE, JUST_IDLE)), {}, 2, R.STEADY, id="idle, but not for long"),
        pytest.param(
            ready(1, plans=1, unmet=2), {}, 2, R.PROGRAM_MISSING, id="an agent of a new configuration may have it"
        ),
        pytest.param(ready(1, plans=1, unmet=2, updated=1), {}, 1, R.STEADY, id="one of it is there, and does not"),
        pytest.param(ready(1, plans=1, starting=1, unmet=2), {}, 2, R.STEADY, id="one of it starts"),
        pytest.param(
            ready(5, plans=4, applies=1, unmet=2, outdated=3, idle_since=(JUST_IDLE,) * 3), {}, 4, R.OUTDATED,
            id="at the maximum an idle agent makes room for one that may have a program",
        ),
        pytest.param(
            ready(3, plans=2, applies=1, idle_since=(LONG_IDLE, JUST_IDLE)), {}, 2, R.IDLE_AGENT,
            id="an idle agent is removed for its own idleness (F33)",
        ),
        pytest.param(
            ready(2, plans=2, applies=1, idle_since=(LONG_IDLE,)), {}, 2, R.STEADY, id="the last free slot 0 stays"
        ),
        pytest.param(
            ready(2, starting=1, idle_since=(LONG_IDLE,)), {}, 3, R.STEADY, id="nothing is removed while pods start"
        ),
        pytest.param(
            ready(2, idle_since=(NOW,), outdated=1), {}, 3, R.OUTDATED, id="what replaces outdated pods comes first"
        ),
        pytest.param(
            ready(2, idle_since=(NOW,), outdated=1, updated=1), {"min_agents": 2}, 1, R.OUTDATED,
            id="then outdated pods make room, also at the minimum",
        ),
        pytest.param(
            ready(5, idle_since=(NOW,), outdated=1), {}, 4, R.OUTDATED, id="one makes room first at the maximum"
        ),
        pytest.param(
            ready(1, idle_since=(NOW,), outdated=1, updated=1, failures=(NOW - 500,)), {}, 1, R.STEADY,
            id="what works is kept while what is new fails",
        ),
        pytest.param(
            ready(1, starting=1, idle_since=(NOW,), outdated=1), {}, 2, R.STEADY, id="one outdated pod after the other"
        ),
        pytest.param(
            ready(2, idle_since=(LONG_IDLE,), outdated=2), {}, 1, R.LOW_UTILISATION, id="nothing replaces what may go"
        ),
    ],
)  # fmt: skip
def test_decision(facts: PoolFacts, limits: dict[str, object], desired: int, reason: ScalingReason) -> None:
    decision = decide(facts, LIMITS.model_copy(update=limits), NOW)
    assert (decision.desired, decision.reason) == (desired, reason)


def test_a_decision_says_that_the_maximum_keeps_the_pool_from_growing() -> None:
    """F6."""
    decision = decide(ready(5, reserved=5, pending_applies=9), LIMITS, NOW)
    assert (decision.desired, decision.refused) == (5, "already at the maximum of 5")
    assert decision.noteworthy
    assert not decision.changes


def test_creation_backs_off_while_pods_fail_to_start_and_resumes_after() -> None:
    """F6: no crash loop of pods."""
    facts = ready(0, pending_plans=1, failures=(NOW - 100, NOW - 5))
    held = decide(facts, LIMITS, NOW)
    assert (held.desired, held.reason) == (0, R.BACKING_OFF)
    assert decide(facts, LIMITS, NOW + 16).desired == 1


def test_back_off_doubles_and_ends() -> None:
    assert [back_off_until((NOW,) * count, NOW) - NOW for count in (1, 2, 3, 9)] == [10, 20, 40, 300]
    assert back_off_until((NOW - 601,), NOW) == 0


@st.composite
def pools(draw: st.DrawFn) -> tuple[PoolFacts, PoolLimits]:
    agents = draw(st.integers(0, 12))
    applies, plans = draw(st.integers(0, agents)), draw(st.integers(0, 2 * agents))
    busy = max(applies, -(-plans // 2))
    idle = draw(st.lists(st.floats(NOW - 1000, NOW), max_size=agents - busy))
    facts = ready(
        agents, applies=applies, plans=plans, starting=draw(st.integers(0, 4)), idle_since=tuple(idle),
        pending_plans=draw(st.integers(0, 40)), pending_applies=draw(st.integers(0, 40)),
        failures=tuple(draw(st.lists(st.floats(NOW - 700, NOW), max_size=4))),
        outdated=draw(st.integers(0, len(idle))), updated=draw(st.integers(0, agents)),
    )  # fmt: skip
    least = draw(st.integers(0, 8))
    limits = PoolLimits(min_agents=least, max_agents=draw(st.integers(max(least, 1), 10)), step=draw(st.integers(1, 5)))
    return facts, limits


@given(pools())
def test_a_decision_keeps_its_limits_whatever_the_facts(pool: tuple[PoolFacts, PoolLimits]) -> None:
    facts, limits = pool
    decision = decide(facts, limits, NOW)
    assert decision.desired <= max(limits.max_agents, 0) or decision.desired == facts.current
    if decision.desired > facts.current:
        assert decision.desired <= limits.max_agents
        assert decision.desired - facts.current <= max(limits.step, limits.min_agents - facts.current, 1)
    if decision.desired < facts.current:
        assert decision.desired >= limits.min_agents - (decision.reason is R.OUTDATED)
        assert decision.reason is R.ABOVE_MAXIMUM or decision.desired == facts.current - 1
        assert decision.reason is R.ABOVE_MAXIMUM or facts.idle_since


@given(pools())
def test_one_decision_adds_as_many_agents_as_runs_wait_for_and_no_more(pool: tuple[PoolFacts, PoolLimits]) -> None:
    """Starting pods count as what they are about to be."""
    facts = replace(pool[0], failures=())
    assume(facts.current)
    decision = decide(facts, PoolLimits(max_agents=10_000), NOW)
    assume(decision.reason in (R.APPLIES_WAIT, R.PLANS_WAIT))

    def suffices(more: int) -> bool:
        agents = facts.starting + more
        left = facts.free_apply + agents - facts.pending_applies
        return left >= 0 and facts.pending_plans <= left + facts.free_plan_only + 2 * agents

    added = decision.desired - facts.current
    assert suffices(added)
    assert not suffices(added - 1)


@given(pools())
def test_no_agent_is_removed_while_applies_wait(pool: tuple[PoolFacts, PoolLimits]) -> None:
    """Not even an idle one: an apply is about to get it."""
    facts, limits = pool
    assume(facts.pending_applies)
    assert decide(facts, limits, NOW).desired >= facts.current
