"""A local state belongs to a workspace's identity; a name that is used again inherits nothing (F47)."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.services.conftest import ControlPlane
from workers.core.errors import StillInUse
from workers.protocol.errors import InvalidRequest
from workers.protocol.kinds import RunKind
from workers.protocol.sources import DirectorySource
from workers.services import workspaces
from workers.specs.workspaces import WorkspaceSpec


def applied(control: ControlPlane, workspace: str = "net") -> Path:
    """Run something on the workspace, store a state where its order says, and return where."""
    control.submit(RunKind.PLAN, workspace)
    place = Path(control.agent().work().state_path or "")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(place.parent.name)
    return place


def create(control: ControlPlane, name: str = "net", **options: str) -> None:
    source = DirectorySource(path=str(control.system.settings.home / "code"))
    workspaces.create(control.system, WorkspaceSpec(name=name, source=source), **options)


def test_a_name_that_is_used_again_has_another_state(control: ControlPlane) -> None:
    create(control)
    first = applied(control)
    assert workspaces.delete(control.system, "net") == first.parent
    create(control)
    second = applied(control)
    assert second.parent.name.startswith("net.")
    assert first.parent != second.parent
    assert first.read_text() == first.parent.name


def test_a_workspace_that_was_never_applied_leaves_nothing(control: ControlPlane) -> None:
    create(control)
    planned = applied(control)
    planned.unlink()
    assert workspaces.delete(control.system, "net") is None
    assert not planned.parent.exists()


def test_a_workspace_of_the_last_release_keeps_its_state_and_takes_it_along(control: ControlPlane) -> None:
    create(control)
    with control.system.database.begin() as session:
        session.execute(sa.text("UPDATE workspaces SET state_directory = NULL"))
    first = applied(control)
    assert first == control.system.settings.home / "state/net/terraform.tfstate"
    left = workspaces.delete(control.system, "net")
    assert left is not None
    assert (left / "terraform.tfstate").read_text() == "net"
    create(control)
    assert not applied(control).is_relative_to(left)


def test_to_go_on_with_a_state_is_a_choice_of_one_workspace(control: ControlPlane) -> None:
    create(control)
    first = applied(control)
    name = first.parent.name
    with pytest.raises(StillInUse, match=f"{name}.*'net'"):
        create(control, "other", adopt_state=name)
    workspaces.delete(control.system, "net")
    with pytest.raises(InvalidRequest, match=f"no state '../code'.*It keeps {name}"):
        create(control, adopt_state="../code")
    create(control, "other", adopt_state=name)
    assert applied(control, "other") == first
