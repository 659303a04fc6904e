"""Alive is who makes progress (F31)."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.probe import HEARTBEAT_SECONDS, TICK_SECONDS, Liveness, LivenessFile, read, stuck
from tests.agent.conftest import AgentProcess
from tests.waiting import eventually

NOW = 10_000.0


def test_a_real_agent_is_ready_and_goes_on_ticking(agent: AgentProcess) -> None:
    def signs() -> Liveness | None:
        return read(agent.work_dir)

    first = eventually(lambda: (found := signs()) and found.reaching_since and found)
    eventually(lambda: (found := signs()) and found.tick_at > first.tick_at, 20)
    assert probe("ready", agent.work_dir).returncode == 0
    assert probe("alive", agent.work_dir).returncode == 0


@pytest.mark.parametrize(
    ("signs", "reason"),
    [
        pytest.param(Liveness(heartbeat_at=NOW, tick_at=NOW, reaching_since=0), None, id="works"),
        pytest.param(
            Liveness(heartbeat_at=NOW - HEARTBEAT_SECONDS - 1, tick_at=NOW),
            "its heartbeat stopped 121 s ago", id="stands still"
        ),
        pytest.param(
            Liveness(heartbeat_at=NOW, tick_at=NOW - TICK_SECONDS - 1, reaching_since=0),
            "it takes no orders: Celery's event loop has not ticked for 301 s", id="takes no orders",
        ),
        pytest.param(
            Liveness(heartbeat_at=NOW, tick_at=0, reaching_since=None), None,
            id="Redis away for hours is no reason (F8)"
        ),
        pytest.param(
            Liveness(heartbeat_at=NOW, tick_at=0, reaching_since=NOW - 60), None,
            id="back for a minute, time to reconnect"
        ),
    ],
)  # fmt: skip
def test_which_agent_is_stuck(signs: Liveness, reason: str | None) -> None:
    assert stuck(signs, NOW) == reason


def test_an_outage_ends_readiness_and_its_end_counts_anew(tmp_path: Path) -> None:
    signs = LivenessFile(tmp_path)
    signs.heartbeat(reached=True)
    first = read(tmp_path)
    signs.heartbeat(reached=False)
    away = read(tmp_path)
    signs.heartbeat(reached=True)
    back = read(tmp_path)
    assert first is not None
    assert away is not None
    assert back is not None
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
    assert (answer.returncode, answer.stdout) == (1, "no agent works here\n")


def test_the_probe_answers_for_what_it_finds(tmp_path: Path) -> None:
    now = time.monotonic()
    for reaching_since, ready in ((now, 0), (None, 1)):
        found = {"heartbeat_at": now, "tick_at": now, "reaching_since": reaching_since}
        (tmp_path / "liveness.json").write_text(json.dumps(found))
        assert probe("ready", tmp_path).returncode == ready
        assert probe("alive", tmp_path).returncode == 0
