"""An upgrade in the middle of everything, and its way back (F38).

Agents of the last release finish what they began, under this control plane: it gives them the rules that they need on
Redis until the last of them is replaced, and no longer.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from celery.result import AsyncResult

from tests.contract.plane import POOL, Plane
from tests.contract.release import ROOT
from tests.contract.test_versions import failure
from tests.waiting import eventually


@dataclass
class Upgraded:
    """This control plane, with runs that agents of the last release hold."""

    plane: Plane
    release: Path
    waiting: AsyncResult
    planning: AsyncResult
    lost: AsyncResult
    applying: AsyncResult
    gate: Path

    def agent(self, run: AsyncResult) -> str:
        """Return the agent that a run is on."""
        name: str = self.plane.cli(ROOT, "show", run.id, "--json")["agent"]
        return name

    def users(self) -> set[str]:
        """Return the users of the pool on Redis."""
        listed = self.plane.app.backend.client.acl_users()
        return {user for user in listed if user.startswith(f"ts-{POOL}-")}


@pytest.fixture(scope="module")
def upgraded(plane: Plane, release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgraded]:
    gates = tmp_path_factory.mktemp("gates")
    with plane.control(release, release):
        waiting = plane.apply(plane.workspace(release, "waiting"))
        planning = plane.apply(plane.workspace(release, "planning", HOLD_PLAN=str(gates / "planning")))
        lost = plane.apply(plane.workspace(release, "lost", HOLD_PLAN=str(gates / "lost")))
        applying = plane.apply(plane.workspace(release, "applying", HOLD_APPLY=str(gates / "applying")))
        plane.reach(waiting, "APPLY_PENDING")
        plane.reach(applying, "APPLY_PENDING")
        plane.tell("confirm", applying)
        for run in (planning, lost, applying):
            plane.started(release, run)
    with plane.control(ROOT, ROOT):
        yield Upgraded(plane, release, waiting, planning, lost, applying, gates)


def test_an_older_agent_applies_the_plan_that_it_made(upgraded: Upgraded) -> None:
    agent = upgraded.agent(upgraded.waiting)
    assert upgraded.plane.sources_of(agent) == str(upgraded.release)
    upgraded.plane.tell("confirm", upgraded.waiting)
    applied = upgraded.waiting.get(timeout=90)
    assert (applied["agent"], applied["outputs"]) == (agent, {"greeting": "hello"})


def test_an_older_agent_finishes_an_apply_that_began_before(upgraded: Upgraded) -> None:
    (upgraded.gate / "applying").touch()
    assert upgraded.applying.get(timeout=90)["status"] == "succeeded"


def test_an_older_agent_follows_a_cancel(upgraded: Upgraded) -> None:
    upgraded.plane.tell("cancel", upgraded.planning)
    assert failure(upgraded.planning) == "RunCancelled"


def test_the_plan_of_an_older_agent_that_is_lost_is_made_again_by_one_of_this_version(upgraded: Upgraded) -> None:
    run = upgraded.lost
    os.kill(upgraded.plane.agents()[upgraded.agent(run)], signal.SIGKILL)
    eventually(lambda: run.state == "PLANNING" and run.info["attempt"] == 2, 60)
    (upgraded.gate / "lost").touch()
    again = upgraded.plane.reach(run, "APPLY_PENDING")
    assert upgraded.plane.sources_of(again["agent"]) == str(ROOT)
    upgraded.plane.tell("discard", run)
    assert failure(run) == "RunDiscarded"


def test_older_agents_are_replaced_when_idle_and_their_rules_go_with_them(upgraded: Upgraded) -> None:
    plane, release = upgraded.plane, str(upgraded.release)
    eventually(lambda: not [name for name in plane.agents() if plane.sources_of(name) == release], 90)
    eventually(lambda: f"ts-{POOL}-2" in upgraded.users(), 60)


def test_the_way_back_loses_no_run(upgraded: Upgraded, tmp_path: Path) -> None:
    plane, release = upgraded.plane, upgraded.release
    back = plane.apply(plane.workspace(ROOT, "back"))
    agent = plane.reach(back, "APPLY_PENDING")["agent"]
    with plane.control(release, release):
        plane.tell("confirm", back)
        assert back.get(timeout=90)["agent"] == agent
