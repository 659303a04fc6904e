"""A report that can never be taken keeps its slot for a bounded time, and a forged one changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.services.conftest import POOL, ControlPlane, HandAgent
from workers.core.errors import RunFailed
from workers.core.lifecycle import RunNote, RunStatus
from workers.protocol.errors import Unavailable
from workers.protocol.kinds import FailureReason, RunKind
from workers.protocol.leases import CancelMode
from workers.protocol.messages import Order
from workers.services.runs import decide, outcome, report
from workers.services.runs.undeliverable import PATIENCE, end_unreported, receive
from workers.services.scaling.reconcile import reconcile_pods
from workers.slots.report_queue import LONGEST, Found
from workers.store import run_queries

Clock = Callable[[float], None]
LATER = PATIENCE.total_seconds() + 1


def arrives(control: ControlPlane, payload: Any) -> None:
    """Let this be found in the queue of the pool."""
    content = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    receive(control.system, Found(POOL, content[:LONGEST], len(content)))


def started(control: ControlPlane, *, apply: bool = False) -> tuple[HandAgent, Order]:
    """Bring a run to a phase that its agent executes."""
    control.workspace()
    agent = control.agent()
    run = control.submit()
    if apply:
        agent.work()
        decide.confirm(control.system, run.id)
    order = agent.order()
    assert agent.start(order)
    return agent, order


def finished(order: Order, **facts: Any) -> dict[str, Any]:
    about = {
        "pool": "default",
        "agent": "default-1",
        "run": order.run,
        "token": order.token,
        "phase": order.phase.value,
    }
    return {"type": "phase_finished", **about, "outcome": "succeeded", **facts}


def said(control: ControlPlane, run: str) -> list[str]:
    with control.system.database.read() as session:
        return [event.event for event in run_queries.events(session, run)]


class TestAnInvalidReportOfAnEnd:
    @pytest.mark.parametrize(
        ("facts", "why"),
        [
            ({"changes": "drifted"}, "changes: must be a mapping"),
            ({"changes": {"add": -1}}, "changes.add: must be at least 0"),
            ({"phase": "destroy"}, "phase: must be 'plan' or 'apply'"),
        ],
    )
    def test_fails_its_run_after_a_while_and_says_what_was_wrong(
        self, control: ControlPlane, clock_ahead: Clock, facts: dict[str, Any], why: str
    ) -> None:
        _, order = started(control)
        arrives(control, finished(order, **facts))
        assert control.run(order.run).status is RunStatus.PLANNING, "another worker, of a newer version, may take it"
        clock_ahead(LATER)
        arrives(control, finished(order, **facts))

        with pytest.raises(RunFailed) as failed:
            outcome.outcome(control.run(order.run))
        for words in (why, "default-1 has reported the end of the plan as succeeded", "of different versions"):
            assert words in str(failed.value)
        assert control.run(order.run).reason is FailureReason.AGENT_ERROR
        assert control.deliveries() == [order.run]
        assert control.quiet()
        assert said(control, order.run).count(RunNote.REPORT_REJECTED) == 1

    def test_is_dropped_where_a_valid_one_follows(self, control: ControlPlane, clock_ahead: Clock) -> None:
        _, order = started(control, apply=True)
        arrives(control, finished(order, changes="drifted"))
        clock_ahead(LATER)
        arrives(control, finished(order))
        assert control.run(order.run).status is RunStatus.SUCCEEDED

    def test_counts_for_the_phase_alone_that_it_was_about(self, control: ControlPlane, clock_ahead: Clock) -> None:
        agent, order = started(control)
        arrives(control, finished(order, changes="drifted"))
        agent.finish(order)
        decide.confirm(control.system, order.run)
        apply = agent.order()
        assert agent.start(apply)
        clock_ahead(LATER)
        arrives(control, finished(apply, changes="drifted"))
        assert control.run(order.run).status is RunStatus.APPLYING

    def test_ends_a_run_whose_cancel_was_asked_for_as_that(self, control: ControlPlane, clock_ahead: Clock) -> None:
        _, order = started(control)
        decide.cancel(control.system, order.run)
        arrives(control, finished(order, outcome="given up"))
        clock_ahead(LATER)
        arrives(control, finished(order, outcome="given up"))
        assert control.run(order.run).status is RunStatus.CANCELLED
        assert control.quiet()

    def test_shows_nothing_that_a_terminal_would_obey(self, control: ControlPlane, clock_ahead: Clock) -> None:
        _, order = started(control)
        hostile = finished(order, **{"x" * 1000 + "\x1b[2J\n": 1})
        arrives(control, hostile)
        clock_ahead(LATER)
        arrives(control, hostile)
        error = control.run(order.run).error or ""
        assert "\x1b" not in error
        assert len(error) < 1500


class TestAReportThatMeetsAFault:
    @staticmethod
    def meet(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        def fault(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(report, "_advance", fault)

    def test_every_time_fails_its_run(
        self, control: ControlPlane, clock_ahead: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, order = started(control, apply=True)
        self.meet(monkeypatch, ValueError("hunter2"))
        arrives(control, finished(order))
        clock_ahead(LATER)
        arrives(control, finished(order))
        run = control.run(order.run)
        assert (run.status, run.reason) == (RunStatus.FAILED, FailureReason.AGENT_ERROR)
        assert "end of the apply as succeeded, but that report can't be taken: an unexpected ValueError" in str(
            run.error
        )
        assert "hunter2" not in str(run.error)
        assert control.quiet()

    def test_of_a_server_that_is_away_is_repeated_for_as_long_as_it_takes(
        self, control: ControlPlane, clock_ahead: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, order = started(control, apply=True)
        with monkeypatch.context() as outage:
            self.meet(outage, Unavailable("The database does not answer."))
            for seconds in (0, LATER):
                clock_ahead(seconds)
                with pytest.raises(Unavailable):
                    arrives(control, finished(order))
        assert RunNote.REPORT_REJECTED not in said(control, order.run)
        arrives(control, finished(order))
        assert control.run(order.run).status is RunStatus.SUCCEEDED


@pytest.mark.parametrize(
    "forge",
    [
        lambda order: finished(order, token="a-token-that-was-guessed", changes="drifted"),
        lambda order: finished(order, token=None),
        lambda order: finished(order, run="run-2"),
        lambda order: finished(order, run=["run-1"]),
        lambda order: finished(order, run="\ud800"),
        lambda order: finished(order, run="a\x00b"),
        lambda _: {"type": "phase_finished"},
        lambda order: [order.run, order.token],
        lambda _: None,
    ],
)
def test_a_message_without_the_token_of_its_run_changes_nothing(
    control: ControlPlane, clock_ahead: Clock, forge: Callable[[Order], object]
) -> None:
    _, order = started(control)
    before = said(control, order.run)
    for seconds in (0, LATER):
        clock_ahead(seconds)
        arrives(control, forge(order))
    assert said(control, order.run) == before
    assert control.run(order.run).status is RunStatus.PLANNING


class TestAPhaseWhoseEndIsNeverReported:
    """A report of an unknown type may be of an end, and one of another protocol never arrives."""

    def late(self, control: ControlPlane, clock_ahead: Clock, agent: HandAgent, order: Order, seconds: float) -> None:
        clock_ahead(seconds)
        control.slots.heartbeat(agent.name, agent.instance_id, [], [order.token])
        reconcile_pods(control.system, control.spec())

    def test_fails_when_its_time_is_long_over_and_its_living_agent_was_told_to_kill_it(
        self, control: ControlPlane, clock_ahead: Clock
    ) -> None:
        agent, order = started(control)
        arrives(control, {**finished(order), "type": "phase_ended"})
        over = control.spec().timeouts.plan + control.spec().timeouts.redeem + control.spec().timeouts.interrupt
        for seconds, status in ((59, "planning"), (61, "planning"), (121, "planning"), (182, "failed")):
            self.late(control, clock_ahead, agent, order, over + seconds)
            assert control.run(order.run).status == status
        run = control.run(order.run)
        assert run.reason is FailureReason.TIMED_OUT
        for words in ("took longer than it may", "default-1", "phase_ended", "of different versions"):
            assert words in (run.error or "")
        assert control.quiet()

    def test_goes_on_where_its_agent_was_silent_since_before_the_kill_and_learns_of_it_only_now(
        self, control: ControlPlane, clock_ahead: Clock
    ) -> None:
        """F12: the kill is on its way, and the process there for another moment."""
        agent, order = started(control)
        control.pods.keep_deleting = True
        over = control.spec().timeouts.plan + control.spec().timeouts.redeem + control.spec().timeouts.interrupt
        clock_ahead(over + 198)
        control.slots.heartbeat(agent.name, agent.instance_id, [], [order.token])
        for seconds in (200, 230, 260, 290):
            clock_ahead(over + seconds)
            reconcile_pods(control.system, control.spec())
        self.late(control, clock_ahead, agent, order, over + 301)
        assert control.run(order.run).status is RunStatus.PLANNING
        self.late(control, clock_ahead, agent, order, over + 363)
        assert control.run(order.run).status is RunStatus.FAILED

    def test_is_judged_by_itself_and_as_it_is_now(
        self, control: ControlPlane, clock_ahead: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        agent, order = started(control)
        other = control.submit(RunKind.PLAN)
        second = agent.order()
        assert agent.start(second)
        over = control.spec().timeouts.plan + control.spec().timeouts.redeem + control.spec().timeouts.interrupt
        tokens = [order.token, second.token]
        find = type(control.slots).find

        def unreadable(slots: Any, run: str) -> Any:
            if run == order.run:
                raise ValueError("a record of another version")
            return find(slots, run)

        for seconds in (61, 121, 182):
            clock_ahead(over + seconds)
            control.slots.heartbeat(agent.name, agent.instance_id, [], tokens)
            with monkeypatch.context() as spoiled:
                spoiled.setattr(type(control.slots), "find", unreadable)
                before = [control.run(other.id)]
                decide.cancel(control.system, other.id, force=True)
                end_unreported(control.system, control.spec(), [control.run(order.run), *before])
                reconcile_pods(control.system, control.spec())
        assert control.run(order.run).status is RunStatus.PLANNING
        assert control.run(other.id).status is RunStatus.CANCELLED

    def test_goes_on_while_its_agent_is_silent(self, control: ControlPlane, clock_ahead: Clock) -> None:
        """F12: its terraform may still write; the end of its pod is waited for."""
        agent, order = started(control)
        control.pods.keep_deleting = True
        self.late(control, clock_ahead, agent, order, 5000)
        lease = control.slots.find(order.run)
        assert lease is not None
        assert lease.cancel is CancelMode.KILL
        for seconds in (5020, 5100, 9000):
            clock_ahead(seconds)
            reconcile_pods(control.system, control.spec())
        assert control.run(order.run).status is RunStatus.PLANNING


class TestAReportThatIsTooLong:
    """F35: it is read no further than its beginning, and ends its run at once; no other version would take it."""

    def test_ends_its_run_and_says_why(self, control: ControlPlane) -> None:
        _, order = started(control)
        arrives(control, finished(order, outputs={"big": "x" * LONGEST}))
        with pytest.raises(RunFailed, match=f"at most are read|{LONGEST:,}"):
            outcome.outcome(control.run(order.run))
        assert control.quiet()

    def test_ends_no_run_without_its_token(self, control: ControlPlane) -> None:
        _, order = started(control)
        arrives(control, finished(order, outputs={"big": "x" * LONGEST}) | {"token": "another"})
        assert control.run(order.run).status is RunStatus.PLANNING


@pytest.mark.parametrize("content", [b"", b"no JSON", b"\xff", b"[]", b"1", b"[" * 100_000, b'{"run": 1}', b"NaN"])
def test_what_is_no_report_is_dropped(control: ControlPlane, content: bytes) -> None:
    _, order = started(control)
    arrives(control, content)
    assert control.run(order.run).status is RunStatus.PLANNING


def test_a_report_in_the_queue_of_another_pool_is_dropped(control: ControlPlane) -> None:
    _, order = started(control)
    receive(control.system, Found("other", json.dumps(finished(order)).encode(), 100))
    assert control.run(order.run).status is RunStatus.PLANNING
