"""Alive is who makes progress (F31)."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent import liveness
from agent.liveness import PULSE_SECONDS, TURN_SECONDS, Vitals, VitalSigns, wedged
from tests.agent.conftest import AgentProcess
from tests.waiting import eventually

NOW = 10_000.0


def test_a_real_agent_is_ready_and_goes_on_turning(agent: AgentProcess) -> None:
    def signs() -> Vitals | None:
        return liveness.read(agent.work_dir)

    first = eventually(lambda: (found := signs()) and found.registered and found)
    eventually(lambda: (found := signs()) and found.turned_at > first.turned_at, 20)
    assert probe("ready", agent.work_dir).returncode == 0
    assert probe("alive", agent.work_dir).returncode == 0


@pytest.mark.parametrize(
    ("signs", "reason"),
    [
        pytest.param(Vitals(pulse_at=NOW, turned_at=NOW, reaching_since=0), None, id="works"),
        pytest.param(
            Vitals(pulse_at=NOW - PULSE_SECONDS - 1, turned_at=NOW), "its pulse stopped 121 s ago", id="stands still"
        ),
        pytest.param(
            Vitals(pulse_at=NOW, turned_at=NOW - TURN_SECONDS - 1, reaching_since=0),
            "it takes no orders: Celery's loop has not turned for 301 s", id="takes no orders",
        ),
        pytest.param(
            Vitals(pulse_at=NOW, turned_at=0, reaching_since=None), None, id="Redis away for hours is no reason (F8)"
        ),
        pytest.param(
            Vitals(pulse_at=NOW, turned_at=0, reaching_since=NOW - 60), None, id="back for a minute, time to reconnect"
        ),
    ],
)  # fmt: skip
def test_who_is_wedged(signs: Vitals, reason: str | None) -> None:
    assert wedged(signs, NOW) == reason


def test_an_outage_ends_readiness_and_its_end_counts_anew(tmp_path: Path) -> None:
    signs = VitalSigns(tmp_path)
    signs.pulse(reached=True)
    first = liveness.read(tmp_path)
    signs.pulse(reached=False)
    away = liveness.read(tmp_path)
    signs.pulse(reached=True)
    back = liveness.read(tmp_path)
    assert first is not None
    assert away is not None
    assert back is not None
    assert (first.registered, away.registered, back.registered) == (True, False, True)
    assert away.reaching_since is None
    assert back.reaching_since is not None
    assert first.reaching_since is not None
    assert back.reaching_since >= first.reaching_since


def probe(question: str, work_dir: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent.probe", question],
        env={"TERRASLOT_WORK_DIR": str(work_dir)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_probe_says_no_with_a_reason_where_there_is_no_agent(tmp_path: Path) -> None:
    answer = probe("alive", tmp_path)
    assert (answer.returncode, answer.stdout) == (1, "there is no sign of an agent\n")


def test_the_probe_answers_for_what_it_finds(tmp_path: Path) -> None:
    now = time.monotonic()
    for registered, ready in ((True, 0), (False, 1)):
        found = {"pulse_at": now, "turned_at": now, "reaching_since": now, "registered": registered}
        (tmp_path / "liveness.json").write_text(json.dumps(found))
        assert probe("ready", tmp_path).returncode == ready
        assert probe("alive", tmp_path).returncode == 0
