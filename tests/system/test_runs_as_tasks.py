"""Runs as Celery tasks, through the whole system: results, errors, workflows, and what bad input gets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from celery import chain, chord

from tests.system.conftest import HELD, Cloud
from tests.waiting import eventually
from workers.core.errors import (
    IllegalTransition,
    NotWaiting,
    RunCancelled,
    RunDiscarded,
    RunFailed,
    UnknownRun,
    UnknownWorkspace,
)
from workers.protocol.errors import InvalidRequest


def test_a_plan_tells_its_changes_and_changes_nothing(cloud: Cloud) -> None:
    workspace = cloud.workspace()
    for _ in range(2):
        result = cloud.plan(workspace)
        outcome = result.get(timeout=120)
        assert outcome["status"] == "succeeded"
        assert outcome["changes"] == {"add": 1, "change": 0, "destroy": 0}
        assert (outcome["run_id"], outcome["workspace"]) == (result.id, workspace)
        assert outcome["slot"] in (1, 2)


def test_an_apply_waits_for_its_confirmation_and_returns_outputs_from_the_agent_that_planned(cloud: Cloud) -> None:
    workspace = cloud.workspace(variables={"name": "you"})
    result = cloud.reach(cloud.apply(workspace), "APPLY_PENDING")
    assert result.info["status"] == "apply_pending"
    planned_by = result.info["agent"]
    cloud.tell("confirm", result)
    outcome = result.get(timeout=120)
    assert outcome["outputs"] == {"greeting": "hello you"}
    assert (outcome["agent"], outcome["slot"]) == (planned_by, 0)

    again = cloud.apply(workspace).get(timeout=120)
    assert (again["status"], again["changes"]) == ("succeeded", {"add": 0, "change": 0, "destroy": 0})


def test_auto_apply_needs_nobody_and_destroy_removes_everything(cloud: Cloud) -> None:
    workspace = cloud.workspace(auto_apply=True)
    assert cloud.apply(workspace).get(timeout=120)["changes"]["add"] == 1
    assert cloud.apply(workspace, destroy=True).get(timeout=120)["changes"]["destroy"] == 1


def test_a_chain_goes_on_after_an_approval_and_ignores_what_the_run_before_returned(cloud: Cloud) -> None:
    first, second = cloud.workspace(), cloud.workspace()
    result = chain(
        cloud.app.signature("terraform.plan_and_apply", kwargs={"workspace": first}),
        cloud.app.signature("terraform.plan", kwargs={"workspace": second}),
    ).apply_async()
    cloud.reach(result.parent, "APPLY_PENDING")
    assert result.state == "PENDING"
    cloud.tell("confirm", result.parent)
    assert result.get(timeout=120)["workspace"] == second


def test_a_chain_stops_where_a_plan_is_refused(cloud: Cloud) -> None:
    first, second = cloud.workspace(), cloud.workspace()
    result = chain(
        cloud.app.signature("terraform.plan_and_apply", kwargs={"workspace": first}),
        cloud.app.signature("terraform.plan", kwargs={"workspace": second}),
    ).apply_async()
    cloud.tell("discard", cloud.reach(result.parent, "APPLY_PENDING"))
    with pytest.raises(RunDiscarded, match="its plan was refused"):
        result.get(timeout=20)
    with pytest.raises(UnknownRun):
        cloud.run(result)


def test_a_chord_joins_runs_across_an_approval(cloud: Cloud) -> None:
    waits, plans, last = cloud.workspace(), cloud.workspace(), cloud.workspace()
    header = [
        cloud.app.signature("terraform.plan_and_apply", kwargs={"workspace": waits}),
        cloud.app.signature("terraform.plan", kwargs={"workspace": plans}),
    ]
    result = chord(header, app=cloud.app)(cloud.app.signature("terraform.plan", kwargs={"workspace": last}))
    cloud.tell("confirm", cloud.reach(result.parent.results[0], "APPLY_PENDING"))
    assert result.get(timeout=120)["workspace"] == last


def test_a_failed_run_raises_terraforms_own_words(cloud: Cloud) -> None:
    result = cloud.plan(cloud.workspace('resource "terraform_data" "a" { nonsense = true }\n'))
    with pytest.raises(RunFailed, match=r"terraform_failed.*\n?(.|\n)*Unsupported argument"):
        result.get(timeout=120)
    assert result.state == "FAILURE"
    assert "nonsense" in (cloud.run(result).error or "")
    eventually(cloud.quiet)


def test_a_provider_that_can_not_be_installed_is_named(cloud: Cloud) -> None:
    code = 'terraform { required_providers { nope = { source = "localhost.invalid/no/nope" } } }'
    with pytest.raises(RunFailed, match=r"(?s)localhost\.invalid/no/nope"):
        cloud.plan(cloud.workspace(code)).get(timeout=120)


def test_a_directory_that_is_gone_is_named_with_what_to_do(cloud: Cloud) -> None:
    workspace = cloud.workspace()
    directory = cloud.directory / workspace
    (directory / "main.tf").unlink()
    with pytest.raises(RunFailed, match=r"source_unavailable.*There is no Terraform configuration"):
        cloud.plan(workspace).get(timeout=120)
    directory.rmdir()
    with pytest.raises(RunFailed, match=f"source_unavailable.*{directory}"):
        cloud.plan(workspace).get(timeout=120)


def test_bad_requests_get_a_sentence_each_and_the_worker_stays_up(cloud: Cloud) -> None:
    workspace = cloud.workspace()
    for send, error, words in (
        (lambda: cloud.plan("nowhere"), UnknownWorkspace, "No workspace has the name 'nowhere'"),
        (lambda: cloud.plan("../etc"), InvalidRequest, "workspace"),
        (
            lambda: cloud.plan(workspace, priority="high"),
            InvalidRequest,
            "priority='high': must be a whole number",
        ),
        (lambda: cloud.plan(workspace, colour="red"), InvalidRequest, "colour"),
        (lambda: cloud.app.send_task("terraform.plan"), InvalidRequest, "workspace is not set"),
        (lambda: cloud.app.send_task("terraform.plan", args=["a", "b"]), InvalidRequest, "One workspace is expected"),
        (lambda: cloud.app.send_task("terraform.confirm", args=["nothing"]), UnknownRun, "'nothing'"),
        (lambda: cloud.app.send_task("terraform.cancel", args=["nothing"]), UnknownRun, "'nothing'"),
    ):
        with pytest.raises(error, match=words):
            send().get(timeout=20)
    assert cloud.plan(workspace).get(timeout=120)["status"] == "succeeded"


def test_a_run_is_confirmed_once_and_only_while_it_waits(cloud: Cloud) -> None:
    result = cloud.reach(cloud.apply(cloud.workspace()), "APPLY_PENDING")
    cloud.tell("confirm", result)
    with pytest.raises(NotWaiting, match="not waiting for a confirmation"):
        cloud.tell("confirm", result)
    result.get(timeout=120)
    with pytest.raises(NotWaiting, match="it is succeeded"):
        cloud.tell("confirm", result)
    with pytest.raises(IllegalTransition, match="over already"):
        cloud.tell("cancel", result)


def test_a_message_that_is_no_task_is_dropped_and_the_worker_stays_up(cloud: Cloud) -> None:
    for queue in ("celery", "terraslot.control", "terraslot.reports"):
        cloud.app.send_task("os.system", args=["true"], queue=queue, ignore_result=True)
        cloud.system.redis.lpush(queue, '{"body": "not base64", "headers": {}, "properties": {}}')
    assert cloud.plan(cloud.workspace()).get(timeout=120)["status"] == "succeeded"


def test_a_cancelled_apply_is_interrupted_once_keeps_its_state_and_frees_the_workspace(cloud: Cloud) -> None:
    gate = cloud.gate()
    code = 'resource "terraform_data" "done" {}\n' + HELD.replace(
        "{\n  prov", "{\n  depends_on = [terraform_data.done]\n  prov", 1
    )
    workspace = cloud.workspace(code, environment={"GATE": str(gate)}, auto_apply=True)
    result = cloud.reach(cloud.apply(workspace), "APPLYING")
    state = cloud.system.settings.home / "state" / workspace / "terraform.tfstate"
    eventually(lambda: state.exists() and "done" in state.read_text())
    cloud.tell("cancel", result)
    with pytest.raises(RunCancelled):
        result.get(timeout=20)
    gate.touch()
    assert cloud.run(result).status == "cancelled"
    next_one = cloud.reach(cloud.apply(workspace, auto_apply=False), "APPLY_PENDING")
    assert next_one.info["changes"]["add"] == 1  # the held one; what was done is in the state
    cloud.tell("discard", next_one)


def test_a_pending_run_is_cancelled_at_once(cloud: Cloud) -> None:
    pool = cloud.pool(max_agents=1)
    gate = cloud.gate()
    workspace = cloud.workspace(pool=pool, environment={"HOLD_PLAN": str(gate)})
    first, second = cloud.apply(workspace), cloud.apply(workspace)
    cloud.started(first)
    cloud.tell("cancel", second)
    with pytest.raises(RunCancelled):
        second.get(timeout=5)
    gate.touch()
    cloud.tell("discard", cloud.reach(first, "APPLY_PENDING"))


_FOREIGN_CALLER = """
import sys
sys.path += PACKAGES  # without their .pth files, one of which would bring Terraslot
for package in ("workers.protocol", "agent.app"):
    try:
        __import__(package)
    except ModuleNotFoundError:
        pass
    else:
        sys.exit(f"{package} can be imported here")
from celery import Celery
url, workspace = sys.argv[1:]
app = Celery(broker=url, backend=url)
try:
    app.send_task("terraform.plan", kwargs={"workspace": workspace}).get(timeout=120)
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("code", "name", "sentence"),
    [(None, "UnknownWorkspace", "No workspace has the name"), ("nonsense {", "RunFailed", "terraform_failed")],
)
def test_errors_can_be_caught_without_terraslot_installed(
    cloud: Cloud, tmp_path: Path, code: str | None, name: str, sentence: str
) -> None:
    """A caller needs nothing but Celery and the broker's address: it tells errors by their class's name."""
    workspace = cloud.workspace(code) if code else "nowhere"
    packages = [path for path in sys.path if path.endswith("site-packages")]
    caller = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _FOREIGN_CALLER.replace("PACKAGES", repr(packages)),
         cloud.system.settings.redis_url, workspace],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert caller.returncode == 0, caller.stderr
    assert caller.stdout.startswith(f"{name} ")
    assert sentence in caller.stdout
