"""How far a run has come: read while its phase executes, on record once its apply is over."""

from __future__ import annotations

from typing import Any

import pytest

from tests.services.conftest import POOL, ControlPlane, HandAgent
from workers.core.lifecycle import RunStatus
from workers.protocol.messages import Changes, Order
from workers.protocol.progress import Progress
from workers.services.runs import finish, progress
from workers.services.runs import views as run_views
from workers.services.runs.progress import ProgressView
from workers.slots.live_progress import LiveProgress
from workers.store import retention, runs
from workers.store.models import Run, RunProgress

SAID = Progress.model_validate(
    {
        "step": "apply",
        "since": 10.0,
        "working": 1,
        "done": 12,
        "resources": [
            {"address": "a.b", "action": "create", "since": 20.0},
            {"address": "a.c", "action": "delete", "since": 11.0, "seconds": 4.0},
        ],
    }
)


def shown(control: ControlPlane, run: str) -> ProgressView | None:
    return progress.of(control.system, run_views.one(control.system.database, run))


@pytest.fixture
def agent(control: ControlPlane) -> HandAgent:
    control.workspace(auto_apply=True)
    return control.agent()


def applies(control: ControlPlane, agent: HandAgent) -> Order:
    control.submit()
    agent.work(changes=Changes(add=39, destroy=1))
    order = agent.order()
    assert agent.start(order)
    return order


def says(control: ControlPlane, order: Order, said: Progress = SAID) -> None:
    LiveProgress(control.redis, POOL, order.run).tell(order.token, said)


def test_while_an_apply_executes_it_is_what_its_agent_said_last(control: ControlPlane, agent: HandAgent) -> None:
    order = applies(control, agent)
    assert shown(control, order.run) is None
    says(control, order)
    seen = shown(control, order.run)
    assert seen is not None
    assert (seen.live, seen.step, seen.planned, seen.done, seen.working, seen.left_out) == (
        True,
        "apply",
        40,
        12,
        1,
        11,
    )
    assert [(each.address, each.state, each.seconds) for each in seen.resources] == [
        ("a.b", "working", None), ("a.c", "done", 4.0)
    ]  # fmt: skip


def test_what_was_said_of_another_phase_is_not_shown(control: ControlPlane, agent: HandAgent) -> None:
    control.submit()
    order = agent.order()
    assert agent.start(order)
    says(control, order)
    assert shown(control, order.run) is not None
    agent.finish(order)
    assert control.run(order.run).status is RunStatus.APPLYING
    assert shown(control, order.run) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{token}", b"{token} {}x", b"{token} \xff", b'{token} {"done": -1}',
     b"other " + SAID.model_dump_json().encode(),
     b'{token} {"resources": [{"address": "a", "action": "x;y", "since": 1}]}',
     b'{token} {"resources": [{"address": "a", "action": "create", "since": 1e300}]}',
     b"{token} {" + b" " * 100_000 + b"}", b"{token} " + b"[" * 10_000],
)  # fmt: skip
def test_what_is_no_progress_is_none(control: ControlPlane, agent: HandAgent, content: bytes) -> None:
    order = applies(control, agent)
    control.redis.set(f"ts:{{{POOL}}}:progress:{order.run}", content.replace(b"{token}", order.token.encode()))
    assert shown(control, order.run) is None
    control.redis.delete(f"ts:{{{POOL}}}:progress:{order.run}")
    control.redis.rpush(f"ts:{{{POOL}}}:progress:{order.run}", "a list")
    assert shown(control, order.run) is None


@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_once_it_is_over_it_is_on_record_as_long_as_its_run(
    control: ControlPlane, agent: HandAgent, outcome: str
) -> None:
    order = applies(control, agent)
    about: dict[str, Any] = {"outcome": outcome, "reason": "terraform_failed"} if outcome == "failed" else {}
    agent.finish(order, progress=SAID, **about)
    agent.finish(order, progress=Progress(done=1), **about)
    seen = shown(control, order.run)
    assert seen is not None
    assert (seen.live, seen.step, seen.done, seen.resources[0].state) == (False, None, 12, "unfinished")
    with control.system.database.begin() as session:
        runs.mark_delivered(session, [order.run], control.system.now())
    with control.system.database.begin() as session:
        assert retention.purge(session, Run, control.system.now(), 10) == 1
        assert session.query(RunProgress).count() == 0


def test_an_agent_of_an_earlier_version_tells_none(control: ControlPlane, agent: HandAgent) -> None:
    order = applies(control, agent)
    agent.finish(order)
    assert shown(control, order.run) is None


def test_of_an_apply_that_was_lost_with_its_agent_it_is_what_was_said_last(
    control: ControlPlane, agent: HandAgent
) -> None:
    order = applies(control, agent)
    says(control, order)
    lost = finish.requeue_or_fail(control.system, control.run(order.run), "its agent is gone", may_have_started=True)
    assert lost is not None
    seen = shown(control, order.run)
    assert seen is not None
    assert [(each.address, each.state) for each in seen.resources] == [("a.b", "unfinished"), ("a.c", "done")]
