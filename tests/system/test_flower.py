"""Flower's own pages and buttons tell and do what is true, on a live system with real agents and Terraform."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from celery.result import AsyncResult

from tests.system.conftest import Ask, Cloud, serving
from tests.waiting import eventually
from workers.core.errors import RunCancelled
from workers.core.lifecycle import RunNote
from workers.protocol import names
from workers.services.runs import views


def tasks(ask: Ask, search: str = "") -> dict[str, dict[str, Any]]:
    """Return the rows of the Tasks page, by the task's id."""
    asked = {
        "draw": 1, "start": 0, "length": 100, "search[value]": search, "order[0][column]": 0, "order[0][dir]": "desc",
        "columns[0][data]": "received",
    }  # fmt: skip
    status, answer = ask("GET", f"/tasks/datatable?{urlencode(asked)}")
    assert status == 200
    return {row["uuid"]: row for row in answer["data"]}


def in_state(ask: Ask, run: AsyncResult, state: str) -> dict[str, Any]:
    """Wait until Flower shows a run in a state; return its row."""
    return eventually(lambda: (row := tasks(ask).get(run.id)) and row["state"] == state and row)


def worker(ask: Ask, name: str, **facts: Any) -> dict[str, Any]:
    """Wait until Flower's Workers page says this of a worker; return its row."""

    def so() -> dict[str, Any] | None:
        rows = {row["hostname"]: row for row in ask("GET", "/workers?json=1")[1]["data"]}
        row = rows.get(name)
        return row if row and all(row.get(fact) == value for fact, value in facts.items()) else None

    return eventually(so)


def page_of(ask: Ask, name: str) -> str:
    """Return the page of a worker, as long as there is one; else nothing."""
    status, page = ask("GET", f"/worker/{name}")
    return str(page) if status == 200 else ""


def test_a_run_is_shown_on_its_agent_from_its_start_to_its_end(cloud: Cloud, flower: Ask) -> None:
    pool, gate, gate_of_apply = cloud.pool(max_agents=1), cloud.gate(), cloud.gate()
    held = {"HOLD_PLAN": str(gate), "HOLD_APPLY": str(gate_of_apply)}
    run = cloud.apply(cloud.workspace(pool=pool, environment=held), message="more <b>capacity</b>")
    agent = names.node_name(pool, cloud.started(run).agent)

    row = in_state(flower, run, "PLANNING")
    assert (row["name"], row["worker"]) == ("terraform.plan_and_apply", agent)
    assert "more <b>capacity</b>" in row["kwargs"]
    eventually(lambda: tasks(flower)[run.id]["started"])
    worker(flower, agent, status=True, active=1)
    assert run.id in tasks(flower, f"state:STARTED worker:{agent}")
    page = flower("GET", f"/task/{run.id}")[1]
    assert 'id="task-terminate"' in page
    assert "<b>capacity" not in page

    gate.touch()
    assert in_state(flower, run, "APPLY_PENDING")["runtime"] is None
    worker(flower, agent, active=0)
    page = flower("GET", f"/task/{run.id}")[1]
    assert ('id="task-revoke"' in page, 'id="task-terminate"' in page) == (True, False)
    assert run.id not in tasks(flower, "state:STARTED")

    cloud.tell("confirm", run)
    in_state(flower, run, "APPLYING")
    gate_of_apply.touch()
    row = in_state(flower, run, "SUCCESS")
    assert (row["worker"], row["runtime"] > 0) == (agent, True)
    assert 'id="task-revoke"' not in flower("GET", f"/task/{run.id}")[1]
    assert worker(flower, agent, active=0)["task-succeeded"] == 1


def test_an_agent_has_a_page_and_obeys_no_button(cloud: Cloud, flower: Ask) -> None:
    pool, gate = cloud.pool(max_agents=1), cloud.gate()
    run = cloud.plan(cloud.workspace(pool=pool, environment={"HOLD_PLAN": str(gate)}))
    agent = names.node_name(pool, cloud.started(run).agent)
    page = eventually(lambda: run.id in (page := page_of(flower, agent)) and page)
    assert ("worker-shutdown" in page, pool in page) == (False, True)
    assert flower("GET", "/api/workers")[1][agent]["stats"]["pool"]["max-concurrency"] == 3
    status, said = flower("POST", f"/api/worker/shutdown/{agent}")
    assert (status, "obeys its pool" in said) == (403, True)
    eventually(lambda: "worker-shutdown" in page_of(flower, "control@terraslot"))
    gate.touch()
    run.get(timeout=60)


def pending(cloud: Cloud) -> AsyncResult:
    workspace = cloud.workspace(pool=cloud.pool())
    cloud.reach(cloud.apply(workspace), "APPLY_PENDING")
    return cloud.apply(workspace)  # behind the other


def planning(cloud: Cloud) -> AsyncResult:
    run = cloud.apply(cloud.workspace(pool=cloud.pool(), environment={"HOLD_PLAN": str(cloud.gate())}))
    cloud.started(run)
    return run


def waiting(cloud: Cloud) -> AsyncResult:
    return cloud.reach(cloud.apply(cloud.workspace()), "APPLY_PENDING")


@pytest.mark.parametrize("terminate", [False, True], ids=["revoked", "terminated"])
@pytest.mark.parametrize("stands", [pending, planning, waiting])
def test_a_run_is_cancelled_in_the_name_of_who_presses_the_button(
    cloud: Cloud, flower: Ask, stands: Callable[[Cloud], AsyncResult], terminate: bool
) -> None:
    run = stands(cloud)
    eventually(lambda: run.id in tasks(flower))
    path = f"/api/task/revoke/{run.id}?terminate={str(terminate).lower()}"
    assert flower("POST", path, **{"Sec-Fetch-Site": "cross-site"})[0] == 403
    status, said = flower("POST", path)
    assert (status, run.id in said["message"]) == (200, True), said
    with pytest.raises(RunCancelled):
        run.get(timeout=60)
    in_state(flower, run, "FAILURE")
    (view,) = [views.by_id(cloud.system.database, run.id)]
    events = [event for event in views.events(cloud.system.database, view) if event.detail.get("actor")]
    assert {event.detail["actor"] for event in events} == {"me"}
    modes = [event.detail["mode"] for event in events if event.event == RunNote.CANCEL_REQUESTED]
    assert modes == ([] if stands is not planning else ["kill" if terminate else "interrupt"])


def test_a_run_that_is_over_is_not_said_to_be_revoked(cloud: Cloud, flower: Ask) -> None:
    run = cloud.plan(cloud.workspace())
    run.get(timeout=60)
    status, said = flower("POST", f"/api/task/revoke/{run.id}?terminate=true")
    assert (status, "is over already" in said) == (409, True)
    assert run.state == "SUCCESS"
    status, said = flower("POST", "/api/task/revoke/a-run-to-come")
    assert (status, "if it comes, it is cancelled" in said["message"]) == (200, True)
    to_come = cloud.app.send_task("terraform.plan", kwargs={"workspace": cloud.workspace()}, task_id="a-run-to-come")
    with pytest.raises(RunCancelled):
        to_come.get(timeout=60)


def test_a_dashboard_that_was_just_started_shows_what_goes_on(cloud: Cloud) -> None:
    run = waiting(cloud)
    agent = names.node_name("default", cloud.run(run).agent)
    with serving(cloud) as fresh:
        row = in_state(fresh, run, "APPLY_PENDING")
        assert (row["worker"], row["received"]) == (agent, cloud.run(run).created_at.timestamp())
        worker(fresh, agent, status=True)
        cloud.tell("discard", run)
        assert "RunDiscarded" in fresh("GET", f"/task/{in_state(fresh, run, 'FAILURE')['uuid']}")[1]
