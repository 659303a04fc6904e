"""The log of a live system: whoever reads a line about a run knows which run of what it is, and where it executes."""

from __future__ import annotations

import json
from typing import Any

from tests.dashboard.conftest import Live
from tests.waiting import eventually

ABOUT = {"run", "workspace", "pool", "agent", "slot", "phase", "attempt"}


def lines(live: Live, run: str) -> list[dict[str, Any]]:
    """All lines about a run, of all processes and agents, in the order of time."""
    found = [
        line
        for path in live.home.rglob("*.log")
        for text in path.read_text(errors="replace").splitlines()
        if run in text and text.startswith("{") and (line := json.loads(text)).get("run") == run
    ]
    return sorted(found, key=lambda line: str(line["timestamp"]))


def test_every_line_about_a_run_says_which_workspace_agent_slot_phase_and_attempt(live: Live) -> None:
    live.workspace("logged")
    run = live.ada.post("/runs", workspace="logged", kind="plan_and_apply").json["run_id"]
    live.reaches(run, "apply_pending")
    assert live.ada.post(f"/runs/{run}/confirm", attempt=1).status == 200
    found = live.reaches(run, "succeeded")
    # The last line comes when the end is stored already.
    said = eventually(lambda: (all_ := lines(live, run)) and any(line["event"] == "run over" for line in all_) and all_)

    assert {line["event"] for line in said} >= {
        "run submitted", "run dispatched", "run waits for confirmation", "run confirmed", "run over", "started",
        "finished",
    }  # fmt: skip
    about = {"workspace": "logged", "pool": "default"}
    for line in said:
        assert line.keys() >= ABOUT, line
        assert line.items() >= about.items(), line
    executed = [line for line in said if line["event"] in ("started", "finished", "run dispatched", "run confirmed")]
    where = {"agent": found["agent"], "slot": found["slot"], "attempt": 1}
    assert all(line.items() >= where.items() for line in executed)
    assert [line["phase"] for line in executed if line["event"] == "finished"] == ["plan", "apply"]
