"""What each of Celery's options means for a run: docs/reference.md has the table, and each row its test here.

Callers are apps with Celery's default settings, which know nothing of Terraslot; one of them has a worker of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from celery.contrib.testing.worker import start_worker
from celery.exceptions import ChordError, NotRegistered, TaskRevokedError
from celery.result import AsyncResult

from tests.system.conftest import Ask, Cloud
from tests.waiting import eventually
from workers.core.errors import RunCancelled, UnknownRun

REFERENCE = Path(__file__).parents[2] / "docs" / "reference.md"
WORKER = ["control@terraslot"]
INVALID = "nonsense {"


@pytest.fixture(scope="module")
def caller(cloud: Cloud) -> Iterator[Celery]:
    """An app with Celery's default settings, and tasks of its own that a worker of its own executes."""
    url = cloud.system.settings.redis_url
    with Celery("caller", broker=url, backend=url, set_as_current=False) as app:
        # Its worker is a thread of this process; what is revoked here is meant for the control plane.
        app.conf.worker_enable_remote_control = False

        @app.task(name="caller.returns")
        def returns(*_: Any, value: Any = None) -> Any:
            return value

        @app.task(name="caller.echo")
        def echo(*arguments: Any) -> Any:
            return list(arguments)

        app.amqp.queues.select_add("callers")
        with start_worker(app, pool="solo", perform_ping_check=False, queues="callers"):
            yield app


@pytest.fixture
def run(caller: Celery) -> Callable[..., Any]:
    """Return what makes the signature of a run."""

    def sign(workspace: str, kind: str = "plan", **options: Any) -> Any:
        return caller.signature(f"terraform.{kind}", kwargs={"workspace": workspace, **options})

    return sign


def own(caller: Celery, name: str, *args: Any, **kwargs: Any) -> Any:
    """Return the signature of a task of the caller's, with the queue that its worker reads."""
    return caller.signature(f"caller.{name}", args=args, kwargs=kwargs).set(queue="callers")


def unknown(cloud: Cloud, result: AsyncResult) -> bool:
    try:
        cloud.run(result)
    except UnknownRun:
        return True
    return False


def expires(cloud: Cloud, caller: Celery, run: Any) -> None:
    """A message that expired before a worker had it enters no run; a run that is entered does not expire."""
    late = run(cloud.workspace()).apply_async(expires=datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(TaskRevokedError, match="expired"):
        late.get(timeout=20)
    assert unknown(cloud, late)
    waits = run(cloud.workspace(), "plan_and_apply").apply_async(expires=1)
    cloud.reach(waits, "APPLY_PENDING")
    eventually(lambda: datetime.now(UTC) > cloud.run(waits).created_at + timedelta(seconds=1))
    cloud.tell("confirm", waits)
    assert waits.get(timeout=60)["status"] == "succeeded"


def countdown(cloud: Cloud, caller: Celery, run: Any) -> None:
    """The run is submitted when the time has come; more of them than a worker has threads hold nobody up."""
    later = [run("nowhere").apply_async(countdown=20) for _ in range(10)]
    soon = run(cloud.workspace()).apply_async(countdown=0.5)
    assert soon.get(timeout=60)["status"] == "succeeded"
    assert all(unknown(cloud, result) for result in later)


def eta(cloud: Cloud, caller: Celery, run: Any) -> None:
    """A moment that is past is now."""
    result = run(cloud.workspace()).apply_async(eta=datetime.now(UTC) - timedelta(hours=1))
    assert result.get(timeout=60)["status"] == "succeeded"


def ignore_result(cloud: Cloud, caller: Celery, run: Any) -> None:
    """This caller waits for nothing; the outcome is there for whoever asks for it by its id."""
    result = run(cloud.workspace()).apply_async(ignore_result=True)
    assert result.get() is None
    assert caller.AsyncResult(result.id).get(timeout=60)["status"] == "succeeded"


def link(cloud: Cloud, caller: Celery, run: Any) -> None:
    """It is sent with the run's dict when the run has succeeded, not when it waits."""
    after = own(caller, "echo", "linked")
    ends = after.freeze()
    first = run(cloud.workspace(), "plan_and_apply").apply_async(link=after)
    cloud.reach(first, "APPLY_PENDING")
    assert ends.state == "PENDING"
    cloud.tell("confirm", first)
    outcome, word = ends.get(timeout=60)
    assert (outcome["run_id"], outcome["status"], word) == (first.id, "succeeded", "linked")


def link_error(cloud: Cloud, caller: Celery, run: Any) -> None:
    """It is sent with the run's id when the run ended otherwise; a run may be one, too."""
    told, repair = own(caller, "echo"), run(cloud.workspace())
    first_result, second_result = told.freeze(), repair.freeze()
    failed = run(cloud.workspace(INVALID)).apply_async(link_error=[told, repair])
    with pytest.raises(Exception, match="terraform_failed"):
        failed.get(timeout=60)
    assert first_result.get(timeout=60) == [failed.id]
    assert second_result.get(timeout=60)["status"] == "succeeded"


def chained(cloud: Cloud, caller: Celery, run: Any) -> None:
    """What stands in front of a run's arguments is ignored whatever it is; the caller's tasks reach its worker."""
    names = [cloud.workspace() for _ in range(3)]
    result = chain(
        run(names[0]),
        own(caller, "returns", value="a string"),
        run(names[1]),
        own(caller, "returns", value=7),
        caller.signature("terraform.plan", args=[names[2]]),
        own(caller, "echo"),
    ).apply_async()
    (outcome,) = result.get(timeout=120)
    assert (outcome["workspace"], outcome["status"]) == (names[2], "succeeded")


def grouped(cloud: Cloud, caller: Celery, run: Any) -> None:
    """Its runs are submitted at once; each has its own outcome."""
    good, bad = cloud.workspace(), cloud.workspace(INVALID)
    result = group(run(good), run(bad)).apply_async()
    eventually(result.ready)
    outcome, error = result.get(propagate=False)
    assert outcome["workspace"] == good
    assert type(error).__name__ == "RunFailed"


def chorded(cloud: Cloud, caller: Celery, run: Any) -> None:
    """The body follows when every run succeeded; where one did not, it fails and is not executed."""
    workspaces = [cloud.workspace() for _ in range(2)]
    outcomes = chord([run(name) for name in workspaces], app=caller)(own(caller, "echo"))
    (listed,) = outcomes.get(timeout=60)
    assert [outcome["workspace"] for outcome in listed] == workspaces
    failed = chord([run(workspaces[0]), run(cloud.workspace(INVALID))], app=caller)(run(workspaces[1]))
    with pytest.raises(ChordError, match="RunFailed"):
        caller.AsyncResult(failed.id).get(timeout=60)
    assert unknown(cloud, failed)


def priority(cloud: Cloud, caller: Celery, run: Any) -> None:
    """F43: whichever queue its sender's steps choose is read."""
    results = [run(cloud.workspace()).apply_async(priority=number) for number in (0, 4, 9)]
    url = cloud.system.settings.redis_url
    with Celery("steps", broker=url, backend=url, set_as_current=False) as app:
        app.conf.broker_transport_options = {"priority_steps": list(range(10))}
        kwargs = {"workspace": cloud.workspace()}
        results += [app.send_task("terraform.plan", kwargs=kwargs, priority=number) for number in (1, 7, 200)]
        assert {result.get(timeout=60)["status"] for result in results} == {"succeeded"}


def queue(cloud: Cloud, caller: Celery, run: Any) -> None:
    """F43: a task that no worker here knows is refused, not dropped."""
    result = chain(run(cloud.workspace()), caller.signature("caller.echo")).apply_async()
    with pytest.raises(NotRegistered, match=r"caller\.echo"):
        result.get(timeout=60)


def time_limits(cloud: Cloud, caller: Celery, run: Any) -> None:
    """They would not bound a run, so they are refused."""
    for limits in ({"time_limit": 60}, {"soft_time_limit": 60}):
        with pytest.raises(Exception, match="time limits do not bound a run") as refused:
            run(cloud.workspace()).apply_async(**limits).get(timeout=20)
        assert type(refused.value).__name__ == "InvalidRequest"


def rate_limit(cloud: Cloud, caller: Celery, run: Any) -> None:
    """It would hold back outcomes that are ready, so it is refused."""
    for limit in ("1/h", 0):
        answers = caller.control.rate_limit("terraform.plan", limit, reply=True, destination=WORKER)
        assert "no rate limit" in answers[0][WORKER[0]]["error"]
    assert [run(cloud.workspace()).apply_async().get(timeout=60)["status"] for _ in range(2)] == ["succeeded"] * 2


def revoked(cloud: Cloud, caller: Celery, run: Any) -> None:
    """F42: it is a cancel of the run, before a worker has entered it, while it plans and while it waits."""
    early = run(cloud.workspace()).apply_async(countdown=1)
    early.revoke()
    gate = cloud.gate()
    plans = run(cloud.workspace(environment={"HOLD_PLAN": str(gate)})).apply_async()
    cloud.started(plans)
    plans.revoke(terminate=True)
    waits = cloud.reach(run(cloud.workspace(), "plan_and_apply").apply_async(), "APPLY_PENDING")
    waits.revoke()
    for result in (early, plans, waits):
        with pytest.raises(RunCancelled):
            caller.AsyncResult(result.id).get(timeout=20)
        eventually(lambda of=result: cloud.run(of).delivered_at)
        assert cloud.run(result).status == "cancelled"
    answers = caller.control.revoke(waits.id, reply=True, destination=WORKER)
    assert answers == [{WORKER[0]: {"ok": f"runs to be cancelled: {waits.id}"}}]


def revoked_by_headers(cloud: Cloud, caller: Celery, run: Any) -> None:
    """F42: it names no run, so it is refused."""
    result = cloud.reach(run(cloud.workspace(), "plan_and_apply").apply_async(headers={"team": "net"}), "APPLY_PENDING")
    answers = caller.control.revoke_by_stamped_headers({"team": ["net"]}, reply=True, destination=WORKER)
    assert "by their ids" in answers[0][WORKER[0]]["ok"]
    cloud.tell("confirm", result)
    assert result.get(timeout=60)["status"] == "succeeded"


ROWS = {
    "expires": expires,
    "countdown": countdown,
    "eta": eta,
    "ignore_result": ignore_result,
    "link": link,
    "link_error": link_error,
    "chain": chained,
    "group": grouped,
    "chord": chorded,
    "priority": priority,
    "queue": queue,
    "time_limit": time_limits,
    "rate_limit": rate_limit,
    "revoke": revoked,
    "revoke_by_stamped_headers": revoked_by_headers,
}


def test_every_row_of_the_table_has_its_test() -> None:
    table = REFERENCE.read_text().partition("### Celery's options")[2].partition("\n## ")[0]
    named = [re.findall(r"`(\w+)`", row)[0] for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)]
    assert named == list(ROWS)


@pytest.mark.parametrize("option", ROWS)
def test_an_option_means_for_a_run_what_the_reference_says(
    cloud: Cloud, caller: Celery, run: Callable[..., Any], option: str
) -> None:
    ROWS[option](cloud, caller, run)


def test_flower_tells_results_and_its_terminate_is_a_cancel(cloud: Cloud, flower: Ask) -> None:
    """F42."""
    result = cloud.reach(cloud.apply(cloud.workspace()), "APPLY_PENDING")
    status, told = flower("GET", f"/api/task/result/{result.id}")
    assert (status, told["state"]) == (200, "APPLY_PENDING")

    assert flower("POST", f"/api/task/revoke/{result.id}?terminate=true")[0] == 200
    with pytest.raises(RunCancelled):
        result.get(timeout=20)
    status, told = flower("GET", f"/api/task/result/{result.id}")
    assert (status, told["state"]) == (200, "FAILURE")
    assert "was cancelled" in told["result"]
    eventually(lambda: cloud.run(result).delivered_at)


def test_flower_confirms_and_limits_no_rate(cloud: Cloud, flower: Ask) -> None:
    result = cloud.reach(cloud.apply(cloud.workspace()), "APPLY_PENDING")
    limit = "/api/task/rate-limit/terraform.plan_and_apply?workername=control@terraslot&ratelimit=1/h"
    status, said = eventually(lambda: (answer := flower("POST", limit))[0] != 404 and answer)
    assert (status, "no rate limit" in said) == (403, True)
    flower("POST", "/api/task/send-task/terraform.confirm", json.dumps({"args": [result.id]}))
    outcome = result.get(timeout=60)
    assert flower("GET", f"/api/task/result/{result.id}") == (
        200, {"task-id": result.id, "state": "SUCCESS", "result": outcome},
    )  # fmt: skip
