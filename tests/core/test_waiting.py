"""What a pending run says that it waits for, as a table of facts and sentences."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.core.lifecycle import RunStatus
from workers.core.waiting import (
    MaintenanceLock,
    Outlook,
    PoolSituation,
    Standing,
    for_a_slot,
    for_its_workspace,
)
from workers.protocol.kinds import RunKind
from workers.protocol.leases import PoolStats

PLAN, APPLY = RunKind.PLAN, RunKind.PLAN_AND_APPLY
NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
SOON, LONG_AGO = NOW + timedelta(minutes=1), NOW - timedelta(minutes=1)
FIRST = Standing(APPLY, "default", runnable=True)
FULL, NOBODY = PoolStats(1, 1, 3, 0, 0, 0), PoolStats(0, 0, 0, 0, 0, 0)


def pool(stats: PoolStats = FULL, maximum: int = 3, *, draining: bool = False, **outlook: object) -> PoolSituation:
    seen = {"starting": 0, "available": stats.available, "blocked": None, "due": SOON} | outlook
    return PoolSituation(maximum, draining, stats, Outlook(**seen))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("run", "situation", "said"),
    [
        pytest.param(FIRST, pool(), "no apply slot is free (first in line)", id="first"),
        pytest.param(
            replace(FIRST, before={(APPLY, None): 3, (PLAN, None): 1}), pool(),
            "no apply slot is free (4 in front)", id="place",
        ),
        pytest.param(
            replace(FIRST, kind=PLAN, before={(APPLY, None): 3, (PLAN, None): 1}), pool(),
            "no slot is free (1 in front)", id="what changes state takes no plan-only slot",
        ),
        pytest.param(replace(FIRST, kind=PLAN), pool(), "no slot is free (first in line)", id="plan"),
        pytest.param(
            FIRST, pool(maximum=1), "no apply slot is free (first in line); the pool is at its maximum of 1 agent",
            id="maximum",
        ),
        pytest.param(
            FIRST, pool(starting=2),
            "no apply slot is free (first in line); 2 pods are starting; the pool is at its maximum of 3 agents",
            id="starting pods count",
        ),
        pytest.param(
            FIRST, pool(starting=2, available=0), "no apply slot is free (first in line); 1 pod is starting",
            id="one of them has registered since",
        ),
        pytest.param(
            FIRST, pool(NOBODY, blocked="the quota refuses another pod"),
            "no agent accepts runs (first in line); the quota refuses another pod", id="refused",
        ),
        pytest.param(
            FIRST, pool(maximum=1, blocked="the quota refuses another pod"),
            "no apply slot is free (first in line); the pool is at its maximum of 1 agent",
            id="what refuses pods that nobody wants is no reason",
        ),
        pytest.param(
            FIRST, pool(NOBODY, starting=1, blocked="the pod p waits: ErrImagePull", due=LONG_AGO),
            "no agent accepts runs (first in line); 1 pod is starting; no cycle of the pool has ended lately: "
            "`terraslot doctor` says what is missing", id="what was seen long ago is not told",
        ),
        pytest.param(
            FIRST, PoolSituation(3, False, NOBODY, None), "no agent accepts runs (first in line)", id="no cycle yet"
        ),
        pytest.param(FIRST, pool(draining=True), "its pool drains, and no run is given to it", id="draining"),
        pytest.param(FIRST, pool(PoolStats(1, 1, 0, 0, 1, 2)), "a slot is free: it starts in a moment", id="free"),
        pytest.param(
            replace(FIRST, start_error="no key"), pool(PoolStats(1, 1, 0, 0, 1, 2)), "it can't be started: no key",
            id="no key",
        ),
        pytest.param(
            replace(FIRST, start_error="no key"), pool(), "no apply slot is free (first in line)",
            id="no key and no slot",
        ),
        pytest.param(
            FIRST, pool(PoolStats(1, 1, 1, 0, 0, 2)), "no apply slot is free (first in line)",
            id="plan-only slots are no use to it",
        ),
    ],
)  # fmt: skip
def test_a_runnable_run_waits_for_a_slot(run: Standing, situation: PoolSituation, said: str) -> None:
    assert for_a_slot(run, situation, NOW) == said


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"active": ("r1", RunStatus.APPLYING)}, "the workspace is busy with run r1, applying (first in line)"),
        (
            {"active": ("r1", RunStatus.APPLY_PENDING), "in_front": 2},
            "the workspace is busy with run r1, which waits for a person (2 in front)",
        ),
        ({"in_front": 1}, "other runs of the workspace come first (1 in front)"),
        (
            {"active": ("r1", RunStatus.APPLYING), "lock": MaintenanceLock("ana", NOW, "upgrade")},
            "the workspace is locked by ana since 2026-01-02 03:04 UTC: upgrade",
        ),
    ],
)
def test_another_waits_for_its_workspace(facts: dict[str, object], said: str) -> None:
    assert for_its_workspace(replace(FIRST, runnable=False, **facts)) == said  # type: ignore[arg-type]


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 12))
def test_no_pod_starts_that_did_not_when_the_cycle_looked(starting: int, available: int, now: int) -> None:
    left = Outlook(starting, available, None, SOON).still_starting(now)
    assert 0 <= left <= starting
    assert left == starting if now <= available else left == max(0, starting - (now - available))
