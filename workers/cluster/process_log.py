"""The log file of a child process: bounded, and asked for its last words."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

MAX_BYTES = 16 * 1024 * 1024
_LAST_LINE = 300


def last_line(log: Path) -> str:
    """Return the last line of a log that says anything, shortened; empty if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = file.read().decode(errors="replace").split("\n")
    except FileNotFoundError:
        return ""
    return next((line.strip()[:_LAST_LINE] for line in reversed(lines) if line.strip()), "")


def bound(log: Path) -> None:
    """Keep a log that grew too long as ``.1`` and empty it. Its writer appends, so it just goes on."""
    if log.exists() and log.stat().st_size > MAX_BYTES:
        shutil.copyfile(log, log.with_name(f"{log.name}.1"))
        os.truncate(log, 0)
