"""Every figure of ``make bench`` can still be measured; what it is here, seen once on a busy machine, means nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIGURES = {
    "slot_map": ["acquire + release", "FOR UPDATE SKIP LOCKED", "fully idle pods by the slot map"],
    "latency": ["against plain Celery", "against Celery's", "against RQ's", "against Dramatiq's", "tasks a second"],
    "throughput": [
        "runs a second, SQLite",
        "runs a second, PostgreSQL",
        "runs a second against plain Celery's two hops",
    ],
    "waits": [
        "first run of a workspace: against the commands by hand",
        "next run of a workspace: against the commands by hand",
        "second run: enqueue to plan",
        "whole command, empty local pool",
        "whole command, warm agent",
        "terraslot runs: processor time",
        "until the last has a slot",
        "an idle agent's worker",
        "an embedded system at rest",
    ],
    "views": ["statements", "round trips", "median"],
    "scaling": ["eight applies at once", "pods, against ticks alone"],
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_row_is_measured(name: str) -> None:
    command = [sys.executable, "-m", "bench", "--effort", "0.003", name]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280)

    assert ended.returncode == 0, ended.stderr
    assert [figure for figure in FIGURES[name] if figure not in ended.stdout] == []
