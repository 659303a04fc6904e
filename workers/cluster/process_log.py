"""The log file of a child process: its size is bounded, and its last line tells why the process ended."""

import os
import shutil
from pathlib import Path

MAX_BYTES = 16 * 1024 * 1024  # some days of an agent's log
_LAST_LINE = 300  # characters: a pod's reason is one line of a table
_TAIL = 4096


def last_line(log: Path) -> str:
    """Return the last line of a log that is not blank, shortened; empty if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            lines = file.read().decode(errors="replace").split("\n")
    except FileNotFoundError:
        return ""
    return next((line.strip()[:_LAST_LINE] for line in reversed(lines) if line.strip()), "")


def bound(log: Path) -> None:
    """Copy a log that grew too long to ``.1`` and empty it. Its writer, which appends, goes on."""
    if log.exists() and log.stat().st_size > MAX_BYTES:
        shutil.copyfile(log, log.with_name(f"{log.name}.1"))
        os.truncate(log, 0)
