"""An upgrade while plans wait, and its way back: on the new schema the previous version goes on (F38)."""

from __future__ import annotations

from pathlib import Path

from tests.contract.plane import Plane
from tests.contract.release import ROOT
from tests.waiting import eventually


def test_an_upgrade_and_its_way_back_lose_no_run(plane: Plane, release: Path) -> None:
    with plane.control(release, release):
        waiting = plane.apply(plane.workspace(release, "upgraded"))
        agent = plane.reach(waiting, "APPLY_PENDING")["agent"]
        back = plane.apply(plane.workspace(release, "back"))
        plane.reach(back, "APPLY_PENDING")
    with plane.control(ROOT, ROOT):
        plane.tell("confirm", waiting)
        assert waiting.get(timeout=90)["agent"] == agent
        eventually(lambda: agent not in plane.agents(), 60)  # it is idle, and of an earlier version
    with plane.control(release, release):
        plane.tell("confirm", back)
        assert back.get(timeout=90)["status"] == "succeeded"
