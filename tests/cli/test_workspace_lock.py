"""``workspace lock``: runs that would change state wait while somebody works on the workspace."""

from __future__ import annotations

import pytest

from workers.core.errors import AlreadyLocked
from workers.core.lifecycle import RunEvent, RunStatus
from workers.protocol.kinds import RunKind
from workers.services import workspaces
from workers.services.runs import dispatch, finish

APPLY = RunKind.PLAN_AND_APPLY


@pytest.fixture
def ana(environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERRASLOT_ACTOR", "ana")


def test_a_locked_workspace_plans_and_applies_nothing_and_its_runs_say_why(control, ana, cli) -> None:
    control.workspace()
    control.agent()
    started = control.submit(APPLY, run_id="started")
    assert started.status is RunStatus.PLANNING
    locked = cli("workspace lock net --message 'the provider is upgraded'")
    assert "Workspace net is locked by ana since" in locked.out
    assert "Run started (planning) goes on: `terraslot cancel started` ends it." in locked.out
    assert finish.end(control.system, started, RunEvent.CANCELLED)

    assert control.submit(RunKind.PLAN, run_id="plan").status is RunStatus.PLANNING
    assert control.submit(APPLY, run_id="held").status is RunStatus.PENDING
    assert dispatch.dispatch(control.system, "default") == 0
    for said in (cli("show held").out, cli("show held --json").json["waiting"], cli("workspace show net").out):
        assert "locked by ana since" in said
        assert "the provider is upgraded" in said

    assert "Workspace net is unlocked. It was locked by ana since" in cli("workspace unlock net").out
    assert dispatch.dispatch(control.system, "default") == 1
    assert "locked by" not in cli("workspace show net").out


def test_a_lock_is_set_and_ended_twice_and_anothers_is_respected(control, ana, cli) -> None:
    control.workspace()
    first = cli("workspace lock net --message why --json").json
    assert (first["lock"]["by"], first["lock"]["message"], first["active_run"]) == ("ana", "why", None)
    assert cli("workspace lock net --message why --json").json == first
    assert cli("workspace show net --json").json["lock"] == first["lock"]
    with pytest.raises(AlreadyLocked, match="The workspace 'net' is locked by ana since"):
        workspaces.lock(control.system, "net", "bob", "mine")
    assert cli("workspace unlock net --json").json["ended"] == first["lock"]
    assert cli("workspace unlock net").out == "Workspace net is not locked.\n"


@pytest.mark.parametrize("message", ["", " ", "x" * 501])
def test_a_lock_says_why(control, cli, message: str) -> None:
    control.workspace()
    assert "A lock needs a message" in cli("workspace lock net --message", message).misuse
    assert cli("workspace show net --json").json["lock"] is None


def test_a_workspace_that_is_not_there_is_not_locked(control, cli) -> None:
    for command in ("lock net --message why", "unlock net"):
        assert "No workspace has the name 'net'" in cli(f"workspace {command}").sentence
