"""Orders, cancels, reports and the pulse, on a real slot map; the agent is in this process."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from agent import heartbeat, outbox, runtime
from agent.programs import Installed, Programs
from tests.agent.conftest import POOL, Configuration, InnerAgent, Plane
from tests.waiting import eventually
from workers.protocol.kinds import FailureReason, RunKind
from workers.protocol.leases import CancelMode, CancelOutcome, SlotState
from workers.protocol.messages import Order, PhaseStarted

MakeAgent = Callable[..., InnerAgent]
HOLDING = 'resource "terraform_data" "first" { input = 1 }\noutput "o" { value = 1 }\n'
SLOW = "echo begun; exec sleep 60"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BUSY_SECONDS", 0.05)
    monkeypatch.setattr(heartbeat, "pause_after", lambda _: 0.05)
    monkeypatch.setattr(outbox, "REPEAT_AFTER", 0.1)


def slow_apply(
    plane: Plane, inner: InnerAgent, configuration: Configuration, run: str = "run-1", **facts: Any
) -> Order:
    """Bring an apply to the point where it runs for a long time."""
    configuration.runs(SLOW)
    planned = plane.order(run, configuration.source)
    inner.execute(planned)
    inner.finished(planned)
    order = plane.resume(planned).model_copy(update=facts)
    inner.execute(order)
    eventually(lambda: any("begun" in line and "Executing" not in line for line in plane.log(run)))
    return order


class TestAnOrder:
    def test_is_executed_reported_and_kept_for_its_apply(
        self, inner_agent: MakeAgent, plane: Plane, configuration: Configuration
    ) -> None:
        inner = inner_agent()
        configuration.write(HOLDING)
        planned = plane.order("run-1", configuration.source)
        inner.execute(planned)
        report = inner.finished(planned)
        assert (report.outcome, report.changed, report.changes.add) == ("succeeded", True, 1)
        assert (inner.agent.settings.work_dir / "runs/run-1/plan.tfplan").exists()
        assert {line.phase for line in plane.log_lines("run-1")} == {"plan"}
        applied = plane.resume(planned)
        inner.execute(applied)
        assert inner.finished(applied).outputs == {"o": 1}
        eventually(lambda: not list((inner.agent.settings.work_dir / "runs").iterdir()))
        started = [report for report in inner.sent if isinstance(report, PhaseStarted)]
        assert [report.token for report in started] == [planned.token, applied.token]

    def test_starts_nothing_without_a_lease(
        self, inner_agent: MakeAgent, plane: Plane, configuration: Configuration, make_order: Callable[..., Order]
    ) -> None:
        """F9."""
        inner = inner_agent()
        configuration.write(HOLDING)
        never = make_order(configuration.source)
        revoked = plane.order("run-2", configuration.source)
        assert plane.slots.cancel("run-2", CancelMode.INTERRUPT) is CancelOutcome.REVOKED
        for order in (never, revoked):
            inner.execute(order).join()
        assert [report.type for report in inner.sent] == ["agent_registered"]
        assert not list((inner.agent.settings.work_dir / "runs").iterdir())

    def test_starts_once_however_often_and_wherever_it_is_delivered(
        self, inner_agent: MakeAgent, plane: Plane, configuration: Configuration
    ) -> None:
        """F9: also when another life of the agent has redeemed it."""
        inner = inner_agent()
        configuration.write(HOLDING)
        order = plane.order("run-1", configuration.source, kind=RunKind.PLAN)
        for thread in [inner.execute(order) for _ in range(5)]:
            thread.join()
        again = inner_agent("agent-1", start=False, work_dir=inner.agent.settings.work_dir)
        again.execute(order).join()
        assert len([each for each in (*inner.sent, *again.sent) if each.type == "phase_started"]) == 1

    def test_is_redeemed_before_anything_else_happens(
        self, inner_agent: MakeAgent, plane: Plane, configuration: Configuration, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """F9: Redis is away in this moment, so nothing may start."""
        inner = inner_agent()
        configuration.write(HOLDING)
        order = plane.order("run-1", configuration.source)

        def away(*_: object) -> bool:
            raise redis.ConnectionError("away")

        monkeypatch.setattr(inner.agent._slot_map, "redeem", away)
        inner.execute(order).join()
        assert not list((inner.agent.settings.work_dir / "runs").iterdir())
        assert inner.agent.slots.executing() == []

    def test_for_slot_0_is_not_taken_in_a_plan_only_slot(
        self, inner_agent: MakeAgent, configuration: Configuration, make_order: Callable[..., Order]
    ) -> None:
        inner = inner_agent(start=False)
        inner.execute(make_order(configuration.source, slot=1)).join()
        assert inner.sent == []

    def test_that_makes_no_sense_is_dropped_without_showing_what_is_in_it(
        self, inner_agent: MakeAgent, capsys: pytest.CaptureFixture[str]
    ) -> None:
        inner = inner_agent(start=False)
        inner.agent.execute({"run": "run-1", "variables": {"password": "hunter2"}, "nonsense": "hunter2"})
        inner.agent.cancel({"run": "hunter2"})
        shown = capsys.readouterr()
        assert "invalid message dropped" in shown.out + shown.err
        assert "hunter2" not in shown.out + shown.err

    def test_that_fails_names_the_reason_and_leaves_no_directory(self, inner_agent: MakeAgent, plane: Plane) -> None:
        inner = inner_agent()
        order = plane.order("run-1", {"type": "directory", "path": "/nowhere"})
        inner.execute(order)
        report = inner.finished(order)
        assert (report.outcome, report.reason) == ("failed", FailureReason.SOURCE_UNAVAILABLE)
        assert "/nowhere" in (report.error or "")
        assert any("/nowhere" in line for line in plane.log("run-1"))
        assert not list((inner.agent.settings.work_dir / "runs").iterdir())

    def test_that_meets_a_fault_of_the_agent_is_reported_all_the_same(
        self, inner_agent: MakeAgent, plane: Plane, configuration: Configuration, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inner = inner_agent()
        monkeypatch.setattr("agent.source.fetch", lambda *_: 1 / 0)
        order = plane.order("run-1", configuration.source)
        inner.execute(order)
        assert inner.finished(order).reason is FailureReason.AGENT_ERROR


class TestACancel:
    def test_reaches_terraform_by_the_heartbeat_alone(
        self, inner_agent: MakeAgent, plane: Plane, configuration: Configuration
    ) -> None:
        inner = inner_agent()
        order = slow_apply(plane, inner, configuration)
        assert plane.slots.cancel("run-1", CancelMode.INTERRUPT) is CancelOutcome.REQUESTED
        report = inner.finished(order)
        assert report.outcome == "cancelled"
        assert "execution halted" in (report.error or "")
        assert not any((inner.agent.settings.work_dir / "children").iterdir())

    def test_by_message_and_heartbeat_together_is_one_interrupt(
        self, inner_agent: MakeAgent, plane: Plane, configuration: Configuration
    ) -> None:
        """F18."""
        inner = inner_agent()
        order = slow_apply(plane, inner, configuration)
        plane.slots.cancel("run-1", CancelMode.INTERRUPT)
        for _ in range(5):
            inner.agent.cancel({"run": "run-1", "token": order.token, "mode": "interrupt"})
        assert inner.finished(order).outcome == "cancelled"
        assert "Two interrupts" not in "\n".join(plane.log("run-1"))

    def test_by_force_kills(self, inner_agent: MakeAgent, plane: Plane, configuration: Configuration) -> None:
        inner = inner_agent()
        order = slow_apply(plane, inner, configuration)
        plane.slots.cancel("run-1", CancelMode.KILL)
        assert inner.finished(order).outcome == "cancelled"
        assert "Interrupt received" not in "\n".join(plane.log("run-1"))

    def test_of_another_token_changes_nothing(
        self, inner_agent: MakeAgent, plane: Plane, configuration: Configuration
    ) -> None:
        inner = inner_agent()
        slow_apply(plane, inner, configuration)
        inner.agent.cancel({"run": "run-1", "token": "of-an-earlier-phase", "mode": "kill"})
        (execution,) = inner.agent.slots.executing()
        assert execution.cause is None


class TestAnEndBeforeItsTime:
    def test_by_timeout_is_a_failure_with_its_reason(
        self, inner_agent: MakeAgent, plane: Plane, configuration: Configuration
    ) -> None:
        inner = inner_agent()
        order = slow_apply(plane, inner, configuration, timeout=1.0)
        report = inner.finished(order)
        assert (report.outcome, report.reason) == ("failed", FailureReason.TIMED_OUT)
        assert "took longer than 1 s" in (report.error or "")
        assert "execution halted" in (report.error or "")

    def test_since_the_lease_is_somebody_elses_is_reported_to_nobody(
        self, inner_agent: MakeAgent, plane: Plane, configuration: Configuration
    ) -> None:
        inner = inner_agent()
        order = slow_apply(plane, inner, configuration)
        plane.slots.release("run-1", order.token)
        plane.order("run-2", configuration.source)
        eventually(lambda: not inner.agent.slots.executing())
        assert not [each for each in inner.sent if each.type == "phase_finished" and each.token == order.token]
        eventually(lambda: not list((inner.agent.settings.work_dir / "runs").iterdir()))

    def test_does_not_follow_from_a_map_that_lost_the_lease(
        self, inner_agent: MakeAgent, plane: Plane, configuration: Configuration
    ) -> None:
        """F12: nobody else has it, so it is brought back, once."""
        inner = inner_agent()
        order = slow_apply(plane, inner, configuration)
        plane.slots.release("run-1", order.token)
        lease = eventually(lambda: plane.slots.find("run-1"))
        assert (lease.token, lease.redeemed) == (order.token, True)
        (execution,) = inner.agent.slots.executing()
        assert execution.cause is None
        plane.slots.release("run-1", order.token)
        eventually(lambda: not inner.agent.slots.executing())


class TestAReport:
    def test_is_repeated_until_the_slot_map_shows_that_it_was_taken(
        self, inner_agent: MakeAgent, plane: Plane, configuration: Configuration
    ) -> None:
        """F26."""
        inner = inner_agent()
        configuration.write(HOLDING)
        order = plane.order("run-1", configuration.source, kind=RunKind.PLAN)
        inner.lossy = True
        inner.execute(order).join()
        stored = inner.agent.settings.work_dir / "reports"
        assert len(list(stored.glob("*.json"))) == 1
        inner.lossy = False
        inner.finished(order)
        eventually(lambda: len([each for each in inner.sent if each.type == "phase_finished"]) > 2)
        plane.slots.release("run-1", order.token)
        eventually(lambda: not list(stored.glob("*.json")))
        assert inner.agent.reports.tokens() == []

    def test_survives_the_agents_process(
        self, inner_agent: MakeAgent, plane: Plane, configuration: Configuration
    ) -> None:
        """F26: the new life says what the old one found out, and the lease is not lost."""
        inner = inner_agent()
        configuration.write(HOLDING)
        order = plane.order("run-1", configuration.source, kind=RunKind.PLAN)
        inner.lossy = True
        inner.execute(order).join()
        inner.agent.heartbeat.end()
        again = inner_agent("agent-1", work_dir=inner.agent.settings.work_dir)
        assert again.finished(order).outcome == "succeeded"
        lease = plane.slots.find("run-1")
        assert lease is not None
        assert lease.lost_since is None

    def test_is_sent_though_it_can_not_be_kept(
        self, inner_agent: MakeAgent, plane: Plane, configuration: Configuration, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inner = inner_agent()
        configuration.write(HOLDING)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("agent.outbox.write_atomically", full)
        order = plane.order("run-1", configuration.source, kind=RunKind.PLAN)
        inner.execute(order)
        assert inner.finished(order).outcome == "succeeded"
        eventually(lambda: len([each for each in inner.sent if each.type == "phase_finished"]) > 1)
        plane.slots.release("run-1", order.token)
        eventually(lambda: not inner.agent.reports.tokens())

    @pytest.mark.parametrize(
        "content", ['{"report": 1}', "[]", "[" * 100_000, None], ids=["other", "list", "deep", "pipe"]
    )
    def test_that_can_not_be_read_from_disk_stops_nobody(self, inner_agent: MakeAgent, content: str | None) -> None:
        inner = inner_agent(start=False)
        broken = inner.agent.settings.work_dir / "reports" / "broken.json"
        if content is None:
            os.mkfifo(broken)
        else:
            broken.write_text(content)
        again = inner_agent("agent-1", work_dir=inner.agent.settings.work_dir)
        assert again.agent.reports.tokens() == []
        assert not broken.exists()

    def test_is_sent_when_the_slot_is_free(
        self, inner_agent: MakeAgent, plane: Plane, configuration: Configuration
    ) -> None:
        """Whoever reads it may send the next order for the slot before this thread is done."""
        inner = inner_agent()
        configuration.write(HOLDING)
        for number in range(3):
            order = plane.order(f"run-{number}", configuration.source, kind=RunKind.PLAN)
            inner.execute(order)
            inner.finished(order)
            assert inner.agent.slots.executing() == []
            plane.slots.release(order.run, order.token)


class TestThePulse:
    def test_survives_every_error(self, inner_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
        """F8."""
        inner = inner_agent()
        good = inner.agent._slot_map.heartbeat
        errors = iter([redis.ConnectionError("away"), ValueError("nonsense"), RuntimeError("anything")])
        beaten = threading.Event()

        def beat(*arguments: Any) -> Any:
            if error := next(errors, None):
                raise error
            beaten.set()
            return good(*arguments)

        monkeypatch.setattr(inner.agent._slot_map, "heartbeat", beat)
        inner.agent.slots.close()  # a busy pulse
        assert beaten.wait(20)

    def test_tells_again_what_was_redeemed_when_a_server_is_back(
        self, inner_agent: MakeAgent, plane: Plane, configuration: Configuration, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """F9: it may have lost the last it was told, and would let the token be taken back."""
        inner = inner_agent()
        order = slow_apply(plane, inner, configuration)
        good = inner.agent._slot_map.heartbeat

        def crash(*arguments: Any) -> Any:
            monkeypatch.setattr(inner.agent._slot_map, "heartbeat", good)
            leases = f"ts:{{{POOL}}}:leases"
            words = plane.redis.hget(leases, "run-1").decode().split(" ")
            plane.redis.hset(leases, "run-1", " ".join([*words[:6], "-", *words[7:]]))
            raise redis.ConnectionError("away")

        monkeypatch.setattr(inner.agent._slot_map, "heartbeat", crash)
        eventually(lambda: inner.agent._slot_map.heartbeat is good)
        eventually(lambda: (lease := plane.slots.find("run-1")) and lease.redeemed)
        assert plane.slots.cancel("run-1", CancelMode.INTERRUPT) is CancelOutcome.REQUESTED
        assert inner.finished(order).outcome == "cancelled"

    def test_brings_everything_back_after_redis_came_back_empty(
        self, inner_agent: MakeAgent, plane: Plane, configuration: Configuration
    ) -> None:
        """F8: what executes, what is not reported, what is reserved."""
        inner = inner_agent(heartbeat_seconds=0.1)
        configuration.write(HOLDING)
        reserved = plane.order("run-0", configuration.source)
        inner.execute(reserved)
        inner.finished(reserved)
        plane.slots.reserve("run-0", reserved.token, 4e9)
        eventually(lambda: inner.agent.heartbeat._reserved)
        unreported = plane.order("run-1", configuration.source, kind=RunKind.PLAN)
        inner.lossy = True
        inner.execute(unreported).join()
        plane.redis.flushall()
        record = eventually(lambda: plane.slots.agent("agent-1"))
        states = {lease.run: (lease.slot, lease.token, lease.state) for lease in record.leases}
        assert states == {
            "run-0": (0, reserved.token, SlotState.RESERVED),
            "run-1": (unreported.slot, unreported.token, SlotState.RUNNING),
        }
        assert (inner.agent.settings.work_dir / "runs/run-0/plan.tfplan").exists()
        resumed = plane.resume(reserved)
        inner.lossy = False
        inner.execute(resumed)
        assert inner.finished(resumed).outcome == "succeeded"

    def test_brings_back_what_executes(
        self, inner_agent: MakeAgent, plane: Plane, configuration: Configuration
    ) -> None:
        """F8: and Redis being away has ended nothing."""
        inner = inner_agent()
        order = slow_apply(plane, inner, configuration)
        plane.redis.flushall()
        lease = eventually(lambda: plane.slots.find("run-1"))
        assert (lease.token, lease.redeemed, lease.state) == (order.token, True, SlotState.RUNNING)
        plane.slots.cancel("run-1", CancelMode.INTERRUPT)
        assert inner.finished(order).outcome == "cancelled"

    def test_removes_the_directory_of_a_plan_that_nobody_keeps_any_more(
        self, inner_agent: MakeAgent, plane: Plane, configuration: Configuration
    ) -> None:
        inner = inner_agent(heartbeat_seconds=0.1)
        configuration.write(HOLDING)
        order = plane.order("run-1", configuration.source)
        inner.execute(order)
        inner.finished(order)
        plane.slots.reserve("run-1", order.token, 4e9)
        eventually(lambda: inner.agent.heartbeat._reserved)
        directory = inner.agent.settings.work_dir / "runs/run-1"
        assert directory.exists()
        plane.slots.release("run-1", order.token)
        eventually(lambda: not directory.exists())

    def test_tells_when_somebody_drains_the_agent(self, inner_agent: MakeAgent, plane: Plane) -> None:
        inner = inner_agent(heartbeat_seconds=0.1)
        plane.slots.drain("agent-1")
        eventually(lambda: inner.agent.heartbeat._draining)
        plane.slots.undrain("agent-1")
        eventually(lambda: not inner.agent.heartbeat._draining)


class TestStopping:
    def test_waits_for_what_executes_and_for_its_report_and_takes_nothing_more(
        self, inner_agent: MakeAgent, plane: Plane, configuration: Configuration
    ) -> None:
        inner = inner_agent(grace_seconds=30)
        configuration.runs("echo begun; sleep 1")
        planned = plane.order("run-1", configuration.source)
        inner.execute(planned)
        inner.finished(planned)
        order = plane.resume(planned)
        inner.execute(order)
        late = plane.order("run-2", configuration.source, kind=RunKind.PLAN)
        eventually(lambda: any("begun" in line for line in plane.log("run-1")))
        stops = [threading.Thread(target=inner.agent.stop) for _ in range(2)]
        for stop in stops:
            stop.start()
        record = eventually(lambda: (record := plane.slots.agent("agent-1")) and record.draining and record)
        assert record.draining
        inner.execute(late).join()
        assert inner.finished(order).outcome == "succeeded"
        assert stops[0].is_alive()
        plane.slots.release("run-1", order.token)
        for stop in stops:
            stop.join(10)
        types = [report.type for report in inner.sent]
        assert types.count("agent_stopped") == 1
        assert types[-1] == "agent_stopped"
        assert not [each for each in inner.sent if each.type == "phase_started" and each.token == late.token]

    @pytest.mark.parametrize(("grace", "interrupt", "report"), [(8, 2, 1), (600, 120, 10), (7200, 120, 10)])
    def test_interrupts_only_near_the_end_of_the_grace_period(
        self, grace: float, interrupt: float, report: float
    ) -> None:
        assert runtime.last_moments(grace) == (interrupt, report)

    def test_leaves_an_apply_that_it_interrupts_the_time_to_write_its_state(
        self, inner_agent: MakeAgent, plane: Plane, configuration: Configuration, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runtime, "last_moments", lambda grace: (grace - 0.5, 2.0))
        inner = inner_agent(grace_seconds=20)
        order = slow_apply(plane, inner, configuration)
        stop = threading.Thread(target=inner.agent.stop)
        stop.start()
        report = inner.finished(order)
        assert (report.outcome, report.reason) == ("failed", FailureReason.AGENT_LOST)
        assert "execution halted" in (report.error or "")
        plane.slots.release("run-1", order.token)
        stop.join(10)
        assert inner.sent[-1].type == "agent_stopped"

    def test_leaves_a_plan_that_it_cut_short_to_be_made_anew(
        self,
        inner_agent: MakeAgent,
        plane: Plane,
        configuration: Configuration,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(runtime, "last_moments", lambda grace: (grace - 0.2, grace - 1))
        inner = inner_agent(grace_seconds=20)
        program = tmp_path / "slow-terraform"
        program.write_text("#!/bin/sh\necho begun; exec sleep 60\n")
        program.chmod(0o755)
        object.__setattr__(inner.agent._phases, "programs", Programs((Installed((str(program),)),)))
        configuration.write(HOLDING)
        order = plane.order("run-1", configuration.source)
        inner.execute(order)
        eventually(lambda: "begun" in plane.log("run-1"))
        inner.agent.stop()
        assert not [each for each in inner.sent if each.type == "phase_finished"]
        assert inner.sent[-1].type == "agent_stopped"


def test_logs_name_the_run_and_its_slot(
    inner_agent: MakeAgent, plane: Plane, configuration: Configuration, capsys: pytest.CaptureFixture[str]
) -> None:
    assert logging.getLogger().handlers is not None
    inner = inner_agent()
    configuration.write(HOLDING)
    order = plane.order("run-1", configuration.source, kind=RunKind.PLAN, variables={})
    inner.execute(order).join()
    shown = capsys.readouterr().out
    assert "run-1" in shown
    assert f"slot={order.slot}" in shown
    assert POOL
