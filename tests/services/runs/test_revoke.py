"""To revoke a run is to cancel it, whichever and however many control workers hear of it, and whenever they do."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import Ignore
from kombu.message import Message

from tests.services.conftest import ControlPlane
from workers import remote_control, tasks
from workers.core.errors import RunCancelled
from workers.core.lifecycle import RunNote, RunStatus
from workers.protocol import names
from workers.protocol.kinds import RunKind
from workers.services.runs import outcome
from workers.store import run_queries


@pytest.fixture
def hear(control: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Return what lets one control worker hear of a revocation."""
    monkeypatch.setattr(tasks, "system", lambda: control.system)
    yield lambda run, **how: remote_control.revoke(SimpleNamespace(app=control.system.celery), run, **how)
    remote_control._revoked.clear()


def decide(control: ControlPlane) -> list[str]:
    """Let a worker take what was sent because of revocations; return the ids of the messages."""
    taken = []
    while (message := control.redis.rpop(names.CONTROL_QUEUE)) is not None:
        envelope = json.loads(message)
        if envelope["headers"]["task"] != names.REVOKE:
            continue
        args, kwargs, _ = json.loads(base64.b64decode(envelope["body"]))
        taken.append(envelope["headers"]["id"])
        execute(tasks.revoke, taken[-1], *args, **kwargs)
    return taken


def execute(task: Any, task_id: str, *args: Any, **kwargs: Any) -> Any:
    task.push_request(id=task_id)
    try:
        return task.run(*args, **kwargs)
    finally:
        task.pop_request()


def test_two_workers_that_hear_of_it_cancel_once(control: ControlPlane, hear: Callable[..., Any]) -> None:
    control.workspace()
    agent = control.agent()
    run = control.submit()
    agent.start(agent.order())
    for _ in range(2):
        hear(run.id)
    assert decide(control) == [f"revoke-{run.id}"] * 2
    hear([run.id], terminate=True)
    assert decide(control) == [f"terminate-{run.id}"]
    with control.system.database.read() as session:
        modes = [
            event.detail["mode"]
            for event in run_queries.events(session, run.id)
            if event.event == RunNote.CANCEL_REQUESTED
        ]
    assert modes == ["interrupt", "kill"]


def test_it_names_a_run_by_its_whole_id_and_leaves_one_that_is_over(
    control: ControlPlane, hear: Callable[..., Any]
) -> None:
    control.workspace()
    run = control.submit(RunKind.PLAN)
    for named in (run.id[:-1], "nobody", "../net", 7, None):
        hear(named)
    control.system.celery.set_current()
    while (message := control.redis.rpop(names.CONTROL_QUEUE)) is not None:
        args, *_ = json.loads(base64.b64decode(json.loads(message)["body"]))
        with pytest.raises(Exception, match="No run has the id"):
            execute(tasks.revoke, "revoke-it", *args)
    assert control.run(run.id).status is RunStatus.PENDING

    control.agent().work()
    hear(run.id)
    decide(control)
    assert control.run(run.id).status is RunStatus.SUCCEEDED


def test_a_run_that_is_entered_afterwards_is_cancelled(control: ControlPlane, hear: Callable[..., Any]) -> None:
    control.workspace()
    hear("later")
    with pytest.raises(Ignore):
        execute(tasks.plan, "later", workspace="net")
    with pytest.raises(RunCancelled):
        outcome.outcome(control.run("later"))
    assert control.deliveries() == ["later"]


def test_a_request_that_comes_again_when_its_run_is_over_delivers_nothing_twice(
    control: ControlPlane, hear: Callable[..., Any]
) -> None:
    control.workspace()
    agent = control.agent()
    with pytest.raises(Ignore):
        execute(tasks.plan, "run-1", workspace="net")
    agent.work()
    assert execute(tasks.plan, "run-1", workspace="net")["status"] == "succeeded"
    with pytest.raises(Ignore):
        execute(tasks.plan, "run-1", workspace="net")


@pytest.mark.parametrize(("redelivered", "discarded"), [(False, True), (True, False)])
def test_a_message_that_a_worker_had_already_does_not_expire(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch, redelivered: bool, discarded: bool
) -> None:
    """F42: what it asks for may have been done."""
    late = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    message = Message(
        body=json.dumps([[], {}, {}]), content_type="application/json", content_encoding="utf-8",
        headers={"id": "run-1", "task": names.PLAN, "expires": late},
        delivery_info={"redelivered": redelivered}, properties={},
    )  # fmt: skip
    request = remote_control.ControlRequest(message, app=control.system.celery, task=tasks.plan)
    told: list[str] = []
    monkeypatch.setattr(request, "_announce_revoked", lambda reason, **_: told.append(reason))
    monkeypatch.setattr("celery.worker.request.revoked_tasks", {"run-1"})
    assert (request.revoked(), told) == (discarded, ["expired"] if discarded else [])
