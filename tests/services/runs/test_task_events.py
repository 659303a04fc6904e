"""What monitors of Celery see of runs: Celery's own receiver and state, on what the control plane sends."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from tests.services.conftest import POOL, ControlPlane, HandAgent
from tests.services.monitor import Monitor
from tests.waiting import eventually
from workers import tasks
from workers.app import build_app
from workers.core.lifecycle import RunEvent, RunNote, RunStatus
from workers.events import Events
from workers.protocol import names
from workers.protocol.encryption import NoKey
from workers.protocol.errors import InvalidRequest
from workers.protocol.kinds import RunKind
from workers.services.runs import decide, submit, task_events
from workers.services.runs.report import agent_gone
from workers.services.runs.submit import RunRequest

NODE = "control@tests"
AGENT = names.node_name(POOL, "default-1")
SECRET = "gAAAA-an-encrypted-value"


def enqueue(control: ControlPlane, kind: RunKind = RunKind.PLAN_AND_APPLY, **asked: Any) -> str:
    """Submit a run as the control worker ``NODE`` does."""
    control.count += 1
    run = f"run-{control.count}"
    task: Any = {
        "name": f"terraform.{kind}", "args": ["net"], "kwargs": asked, "options": {"task_id": run}, "node": NODE,
    }  # fmt: skip
    submit.submit(control.system, run, kind, RunRequest.of_task(["net"], asked), task)
    return run


def test_a_run_is_received_waits_starts_on_its_agent_waits_for_a_person_and_succeeds(
    control: ControlPlane, monitor: Monitor
) -> None:
    control.workspace()
    run = enqueue(control, message="more capacity")
    task = monitor.reaches(run, "RECEIVED")
    assert (task.name, task.worker.hostname, task.args) == ("terraform.plan_and_apply", NODE, "('net',)")
    assert task.kwargs == "{'message': 'more capacity'}"
    received = control.run(run).created_at.timestamp()

    agent = control.agent()
    assert monitor.reaches(run, "PLANNING").worker.hostname == AGENT
    order = agent.order()
    assert task.started is None
    assert agent.start(order)
    eventually(lambda: task.started)
    assert task.state == "PLANNING"
    agent.finish(order)
    assert monitor.reaches(run, "APPLY_PENDING").worker.hostname == AGENT
    decide.confirm(control.system, run)
    monitor.reaches(run, "APPLYING")
    agent.work(outputs={"endpoint": "here"})
    task = monitor.reaches(run, "SUCCESS")
    assert (task.worker.hostname, task.received) == (AGENT, received)
    assert "'endpoint': 'here'" in task.result
    assert task.succeeded == control.run(run).finished_at.timestamp()
    assert task.runtime == pytest.approx(0, abs=5)
    told = ["received", "received", "planning", "started", "apply_pending", "applying", "succeeded"]
    assert monitor.types(run) == told


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"outcome": "failed", "reason": "terraform_failed", "error": "no such region"}, "no such region"),
        ({"outcome": "cancelled"}, "RunCancelled("),
    ],
    ids=["failed", "cancelled"],
)
def test_a_run_that_does_not_succeed_fails_with_its_own_error(
    control: ControlPlane, monitor: Monitor, how: dict[str, Any], says: str
) -> None:
    control.workspace()
    agent = control.agent()
    run = enqueue(control)
    order = agent.order()
    assert agent.start(order)
    if how["outcome"] == "cancelled":
        decide.cancel(control.system, run)
    agent.finish(order, **how)
    task = monitor.reaches(run, "FAILURE")
    assert says in task.exception
    assert task.worker.hostname == AGENT


def test_a_run_that_no_agent_has_had_is_cancelled_where_it_was_received(
    control: ControlPlane, monitor: Monitor
) -> None:
    control.workspace()
    run = enqueue(control)
    decide.cancel(control.system, run)
    assert monitor.reaches(run, "FAILURE").worker.hostname == NODE


def test_a_run_that_has_lost_its_agent_is_tried_again_on_another(control: ControlPlane, monitor: Monitor) -> None:
    control.workspace()
    lost = control.agent()
    run = enqueue(control)
    assert lost.start(lost.order())
    agent_gone(control.system, POOL, lost.name, lost.instance_id, "its pod is gone")
    assert monitor.reaches(run, "RETRY").exception == "its agent was lost"
    control.agent("default-2")
    task = monitor.reaches(run, "PLANNING")
    assert (task.worker.hostname, task.retries) == (names.node_name(POOL, "default-2"), 1)


def test_an_event_that_comes_late_does_not_take_back_the_end_of_a_run(control: ControlPlane, monitor: Monitor) -> None:
    control.workspace()
    agent = control.agent()
    run = enqueue(control, RunKind.PLAN)
    planning = control.run(run)
    agent.work(changed=False)
    monitor.reaches(run, "SUCCESS")
    heard = len(monitor.heard)
    task_events.moved(control.system, planning)
    task_events.started(control.system, [planning])
    eventually(lambda: len(monitor.heard) == heard + 3)
    assert monitor.state.tasks[run].state == "SUCCESS"


def test_values_that_are_encrypted_or_that_nobody_expects_are_not_shown(
    control: ControlPlane, monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    control.workspace()
    asked = {"variables": {"size": 3}, "encrypted_variables": SECRET}
    monkeypatch.setattr(submit.variables, "expect_usable", lambda *_: None)
    run = enqueue(control, RunKind.PLAN, **asked)
    assert monitor.reaches(run, "RECEIVED").kwargs == "{'variables': {'size': 3}, 'encrypted_variables': '…'}"
    assert SECRET not in str(monitor.heard)


def test_a_request_that_is_refused_is_seen_to_fail_without_what_it_may_not_show(
    control: ControlPlane, monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "system", lambda: control.system)
    kwargs = {"workspace": "net", "password": "hunter2", "variables": {"password": "hunter2"}}
    tasks.plan.push_request(id="refused", args=["a", "b"], kwargs=kwargs, hostname=NODE, task=names.PLAN)
    try:
        tasks.plan.on_failure(InvalidRequest("One workspace is expected."), "refused", ["a", "b"], kwargs, None)
    finally:
        tasks.plan.pop_request()
    task = monitor.reaches("refused", "FAILURE")
    assert (task.name, task.args, task.exception) == (names.PLAN, "()", "InvalidRequest('One workspace is expected.')")
    assert task.kwargs == "{'workspace': 'net', 'password': '…', 'variables': '…'}"
    assert "hunter2" not in str(monitor.heard)


def test_the_tasks_of_runs_send_no_events_of_their_own() -> None:
    silent = {name for name, task in tasks.app.tasks.items() if name.startswith("terraform.") and not task.send_events}
    assert silent == {names.PLAN, names.PLAN_AND_APPLY, names.UNLOCK, names.STATE_PUSH}


def test_the_runtime_is_what_terraform_took_in_the_last_attempt_without_what_the_plan_waited() -> None:
    at = datetime(2030, 1, 1, tzinfo=UTC)
    steps = [
        (0, RunNote.SUBMITTED), (1, RunEvent.DISPATCHED), (2, RunNote.PLAN_STARTED), (60, RunEvent.AGENT_LOST),
        (70, RunEvent.DISPATCHED), (71, RunNote.PLAN_STARTED), (73, RunNote.COMMIT_RESOLVED), (81, RunEvent.PLANNED),
        (5000, RunEvent.CONFIRMED), (5001, RunNote.APPLY_STARTED), (5005, RunNote.CANCEL_REQUESTED),
        (5021, RunEvent.APPLIED), (5022, RunNote.DELIVERY_GIVEN_UP),
    ]  # fmt: skip
    happened: Any = [SimpleNamespace(at=at + timedelta(seconds=seconds), event=event) for seconds, event in steps]
    assert task_events.terraform_seconds(happened) == 10 + 20


def test_every_status_that_is_not_over_is_told(control: ControlPlane, agent: HandAgent) -> None:
    run, told = control.run(enqueue(control)), {}
    for status in RunStatus:
        if not status.is_over:
            run.status = status
            told[status] = task_events.standing(run)["type"]
    assert told == {
        RunStatus.PENDING: "task-retried",
        RunStatus.PLANNING: "task-planning",
        RunStatus.APPLY_PENDING: "task-apply_pending",
        RunStatus.APPLYING: "task-applying",
    }


@pytest.fixture
def agent(control: ControlPlane) -> HandAgent:
    control.workspace()
    return control.agent()


def test_a_broker_that_is_away_delays_nobody_and_only_the_latest_events_wait(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = control.system.settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})
    events = Events(build_app("away", [], [], away))
    tried = threading.Event()
    monkeypatch.setattr(events, "_publish", lambda _: tried.set() or (_ for _ in ()).throw(OSError("refused")))
    events.send(lambda: [{"type": "probe", "hostname": "tests"}])
    assert tried.wait(5)
    monkeypatch.setattr(events, "flush", threading.Event().wait)
    for number in range(20_000):
        events.send(lambda number=number: [{"type": "probe", "hostname": str(number)}])
    assert len(events._waiting) == 10_000


def test_what_can_not_be_made_keeps_no_other_event_from_being_sent(control: ControlPlane, monitor: Monitor) -> None:
    def broken() -> Any:
        raise NoKey("a fault")

    control.system.events.send(broken)
    control.system.events.send(lambda: [{"type": "after", "hostname": "tests"}])
    eventually(lambda: [event for event in monitor.heard if event["type"] == "after"])
