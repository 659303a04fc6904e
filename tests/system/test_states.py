"""States that can't be saved and locks that dead runs leave, on the whole system: a real backend, a real Terraform."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.http_backend import HttpBackend, http_backend
from tests.system.conftest import HELD, HELLO, Cloud
from tests.waiting import eventually
from workers.core.errors import LockNotEnded, RunFailed
from workers.core.lifecycle import RunStatus
from workers.services import workspaces
from workers.services.runs import locks, rescued, submit, waiting
from workers.services.runs import views as run_views
from workers.store import states as stored


@pytest.fixture(scope="module")
def backend() -> Iterator[HttpBackend]:
    with http_backend() as backend:
        yield backend


def test_a_state_that_can_not_be_saved_holds_its_workspace_until_it_is_pushed(
    cloud: Cloud, backend: HttpBackend
) -> None:
    workspace = cloud.workspace(HELLO + backend.block("pushed"), auto_apply=True)
    backend.full = True
    failed = cloud.apply(workspace)
    with pytest.raises(RunFailed, match="terraslot state push"):
        failed.get(timeout=120)
    assert not any(b"greeting" in (cloud.system.redis.get(key) or b"") for key in cloud.system.redis.keys("*:state:*"))
    eventually(lambda: not _in_transit(cloud))
    assert len(json.loads(rescued.content(cloud.system, failed.id))["resources"]) == 1

    backend.full = False
    held = cloud.apply(workspace)
    eventually(lambda: submit.find(cloud.system, held.id))
    view = run_views.one(cloud.system.database, held.id)
    assert f"`terraslot state push {failed.id}` saves it" in waiting.reasons(cloud.system, [held.id])[held.id]
    assert failed.id in (run_views.unsaved(cloud.system.database, view) or "")

    pushed = cloud.app.send_task("terraform.state_push", args=[failed.id])
    assert pushed.get(timeout=120)["status"] == "succeeded"
    assert len(backend.states["/pushed"]["resources"]) == 1
    assert held.get(timeout=120)["changes"] == {"add": 0, "change": 0, "destroy": 0}
    kept = run_views.rescued(cloud.system.database, run_views.one(cloud.system.database, failed.id))
    assert kept is not None
    assert (kept.settled_as, kept.kept) == ("pushed", False)
    assert not cloud.system.redis.keys("*:state:*")


def test_the_lock_of_a_dead_run_is_not_waited_for_and_is_ended_and_no_other(cloud: Cloud, backend: HttpBackend) -> None:
    """Other locks are waited for, here for ten minutes: longer than the test waits."""
    gate = cloud.gate()
    workspace = cloud.workspace(
        HELD + backend.block("locked"),
        auto_apply=True,
        environment={"GATE": str(gate), "TF_CLI_ARGS_plan": "-lock-timeout=600s"},
    )
    holding = cloud.apply(workspace)
    cloud.reach(holding, "APPLYING")
    eventually(lambda: backend.locks.get("/locked", {}).get("Operation") == "OperationTypeApply")
    lock = backend.locks["/locked"]
    cloud.tell("cancel", holding, force=True)
    eventually(lambda: cloud.run(holding).status is RunStatus.CANCELLED)
    assert backend.locks["/locked"] == lock

    gate.touch()
    met = cloud.apply(workspace)
    with pytest.raises(RunFailed) as failed:
        met.get(timeout=120)
    assert f"That was the apply of run {holding.id}, which is over" in str(failed.value)
    assert f"`terraslot unlock {met.id}`" in str(failed.value)
    assert cloud.app.send_task("terraform.unlock", args=[met.id]).get(timeout=120)["status"] == "succeeded"
    assert "/locked" not in backend.locks
    assert cloud.apply(workspace).get(timeout=120)["status"] == "succeeded"

    spec = workspaces.get(cloud.system, workspace)
    hasty = {**spec.environment, "TF_CLI_ARGS_plan": "-lock-timeout=0s"}
    workspaces.update(cloud.system, spec.model_copy(update={"environment": hasty}))
    backend.lock("locked", "f00", "ana@laptop", "2026-11-26T10:00:00Z")
    others = cloud.apply(workspace)
    with pytest.raises(RunFailed, match="No run of this system is known to hold that lock"):
        others.get(timeout=120)
    with pytest.raises(LockNotEnded):
        cloud.app.send_task("terraform.unlock", args=[others.id]).get(timeout=60)
    with pytest.raises(LockNotEnded, match="was ended"):
        locks.unlock(cloud.system, met.id)
    assert backend.locks["/locked"]["ID"] == "f00"


def _in_transit(cloud: Cloud) -> list[str]:
    with cloud.system.database.read() as session:
        return stored.in_transit(session)
