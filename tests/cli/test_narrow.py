"""Tables fit a terminal of 60 columns, and what is copied from them is whole."""

from __future__ import annotations

import pytest

from tests.cli.test_looking import APPLY, finish_plan
from workers.cli import console
from workers.protocol.messages import Changes

ALIKE = ("0f3c9a52-1d7e-4c6b-9f00-3b1a2c4d5e6f", "0f3c9a52-1d7e-4c6b-9f00-3b1a2c4d5e60")
LONG = "network-of-production-in-europe"


@pytest.fixture
def width(control, monkeypatch):
    """Return what sets the width of the terminal; two runs with nearly the same id are on record."""
    wide = console.Console

    def set_width(columns: int) -> None:
        monkeypatch.setattr(console, "Console", lambda **options: wide(**{**options, "width": columns}))
        console.console.cache_clear()

    for workspace, run in zip((LONG, "dns"), ALIKE, strict=True):
        control.workspace(workspace)
        control.submit(APPLY, workspace, run_id=run)
    control.agent("default-1a2b3c")
    finish_plan(control, ALIKE[0], changed=True, changes=Changes(add=8, destroy=2))
    return set_width


@pytest.mark.parametrize(
    ("command", "whole"),
    [
        ("runs", [*ALIKE, LONG, "default-1a2b3c/0", "apply_pending"]),
        ("slots", ["default-1a2b3c", LONG, "[0f3c9a52]", "apply_pending"]),
        ("pool list", ["default", "reserved 1"]),
        ("pool show default", ["default-1a2b3c", LONG, "[0f3c9a52]"]),
        ("agent list", ["default-1a2b3c"]),
        ("workspace list", [LONG]),
        (f"show {ALIKE[0]}", [ALIKE[0], LONG, "agent=default-1a2b3c"]),
        (f"show {ALIKE[0]} --events", ["plan started", "agent=default-1a2b3c", "apply_pending"]),
        ("doctor", ["Something is wrong"]),
    ],
)
def test_on_60_columns_no_line_is_longer_and_no_name_is_broken(cli, width, command, whole) -> None:
    width(60)
    shown = cli(command).out
    assert max(map(len, shown.splitlines())) <= 60
    assert [words for words in whole if words not in shown] == []


def test_on_80_columns_runs_are_a_table_whose_last_column_alone_is_wrapped(cli, width) -> None:
    width(80)
    lines = cli("runs --workspace dns").out.splitlines()
    last = lines[0].index("AGENT OR")
    assert lines[0].split()[:7] == ["RUN", "WORKSPACE", "KIND", "STATUS", "CHANGES", "AGE", "AGENT"]
    [row] = [line for line in lines[1:] if line[:last].strip()]
    assert row.split()[:4] == [ALIKE[1][:8], "dns", "apply", "pending"]
    assert "no apply slot is free" in " ".join(line[last:].strip() for line in lines)
