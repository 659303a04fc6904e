"""Cycles enter what a pool is; its history shows that with the decisions of the time, and the rest page by page."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.services.conftest import POOL, ControlPlane
from workers.core.errors import UnknownPool
from workers.protocol.kinds import RunKind
from workers.services.pools import history
from workers.services.runs import retention
from workers.services.scaling.cycle import cycle
from workers.store import decisions

DAY = 86400.0


def test_a_cycle_enters_agents_slots_and_runs_that_wait_and_history_has_them_with_the_decision(
    control: ControlPlane,
) -> None:
    control.workspace()
    control.workspace("dns")
    agent = control.agent()
    control.submit()
    agent.work()
    for _ in range(3):
        control.submit(RunKind.PLAN)
    control.submit(workspace="dns")
    assert cycle(control.system, POOL)
    seen = history.of(control.system, POOL)
    (sample,) = seen.samples
    assert (sample.ready, sample.starting, sample.running, sample.reserved) == (1, 1, 2, 1)
    assert (sample.waiting_plans, sample.waiting_applies) == (1, 1)
    assert (seen.seconds, seen.until - seen.since, seen.more_decisions) == (60, timedelta(hours=6), False)
    (decision,) = seen.decisions
    assert (decision.current, decision.desired, decision.facts["pending_applies"]) == (1, 2, 1)


def test_a_sample_is_thinned_as_it_ages_and_goes_in_the_end(
    control: ControlPlane, clock_ahead: Callable[[float], None]
) -> None:
    assert cycle(control.system, POOL)
    began = control.system.now()
    for age, seconds in ((DAY / 2, 300), (8 * DAY, 3600), (91 * DAY, None)):
        clock_ahead(age)
        assert retention.purge(control.system)["samples"] == 1
        shown = history.of(control.system, POOL, began - timedelta(minutes=1), began + timedelta(minutes=1))
        assert [shown.seconds for _ in shown.samples] == ([seconds] if seconds else [])


def test_decisions_are_listed_page_by_page(control: ControlPlane) -> None:
    now = control.system.now()
    with control.system.database.begin() as session:
        for desired in range(250):
            at = now - timedelta(seconds=250 - desired)
            decisions.record(session, POOL, at, current=0, desired=desired, reason="why", facts={})
    first = history.decided(control.system, POOL, limit=200)
    rest = history.decided(control.system, POOL, first.before, limit=200)
    assert [each.desired for each in first.decisions + rest.decisions] == list(reversed(range(250)))
    assert rest.before is None
    seen = history.of(control.system, POOL)
    assert (len(seen.decisions), seen.decisions[0].desired, seen.more_decisions) == (200, 249, True)
    earlier = history.of(control.system, POOL, now - timedelta(seconds=250), now - timedelta(seconds=241))
    assert [each.desired for each in earlier.decisions] == list(reversed(range(10)))


def test_a_pool_that_there_is_not_has_no_history(control: ControlPlane) -> None:
    for ask in (history.of, history.decided):
        with pytest.raises(UnknownPool):
            ask(control.system, "nowhere")
