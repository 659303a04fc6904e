"""These agents under the last release, through whole runs (F38); the reverse is an upgrade: see test_upgrade.py."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from celery.result import AsyncResult

from tests.contract.plane import Plane
from tests.contract.release import ROOT
from tests.waiting import eventually


@dataclass
class Pairing:
    """A running control plane with agents of another version."""

    plane: Plane
    control: Path
    agents: Path

    def run(self, name: str, **environment: str) -> AsyncResult:
        return self.plane.apply(self.plane.workspace(self.control, name, **environment))


@pytest.fixture(scope="module")
def pairing(plane: Plane, release: Path) -> Iterator[Pairing]:
    with plane.control(release, ROOT):
        yield Pairing(plane, release, ROOT)
    plane.end_agents()


def failure(run: AsyncResult) -> str:
    """Return the name of the error with which a run ended, which is all that a caller without Terraslot sees."""
    with pytest.raises(Exception, match=run.id) as raised:
        run.get(timeout=90)
    return type(raised.value).__name__


def test_a_confirmed_plan_is_applied_by_the_agent_that_made_it(pairing: Pairing) -> None:
    run = pairing.run(f"confirmed-{pairing.agents.name}")
    planned = pairing.plane.reach(run, "APPLY_PENDING")
    assert pairing.plane.sources_of(planned["agent"]) == str(pairing.agents)
    assert planned["changes"] == {"add": 1, "change": 0, "destroy": 0}

    pairing.plane.tell("confirm", run)

    applied = run.get(timeout=90)
    assert (applied["status"], applied["outputs"]) == ("succeeded", {"greeting": "hello"})
    assert (applied["agent"], applied["slot"]) == (planned["agent"], planned["slot"])


def test_a_cancel_interrupts_terraform_and_ends_the_run(pairing: Pairing, tmp_path: Path) -> None:
    run = pairing.run(f"cancelled-{pairing.agents.name}", HOLD_PLAN=str(tmp_path / "gate"))
    pairing.plane.started(pairing.control, run)

    pairing.plane.tell("cancel", run)

    assert failure(run) == "RunCancelled"


def test_a_plan_whose_agent_is_lost_is_planned_again_elsewhere(pairing: Pairing, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run = pairing.run(f"lost-{pairing.agents.name}", HOLD_PLAN=str(gate))
    first = pairing.plane.started(pairing.control, run)["agent"]
    os.kill(pairing.plane.agents()[first], signal.SIGKILL)
    eventually(lambda: run.state == "PLANNING" and run.info["attempt"] == 2, 60)
    gate.touch()

    again = pairing.plane.reach(run, "APPLY_PENDING")
    assert again["agent"] != first
    pairing.plane.tell("discard", run)
    assert failure(run) == "RunDiscarded"


def test_an_apply_whose_agent_is_lost_fails_and_is_not_repeated(pairing: Pairing, tmp_path: Path) -> None:
    run = pairing.run(f"lost-apply-{pairing.agents.name}", HOLD_APPLY=str(tmp_path / "gate"))
    agent = pairing.plane.reach(run, "APPLY_PENDING")["agent"]
    pairing.plane.tell("confirm", run)
    pairing.plane.started(pairing.control, run)
    os.kill(pairing.plane.agents()[agent], signal.SIGKILL)

    assert failure(run) == "RunFailed"
    assert run.traceback is None or "agent_lost" in str(run.result)
