"""What a dead agent left running: the process groups of its terraforms, named by the files that it wrote for them.

An agent keeps ``WORK_DIR/children/PID`` for each child, ``{"pid", "started"}`` with the time in seconds since the
epoch, as long as the child lives, and adds ``"interrupted": true`` when it sends the one SIGINT that a terraform may
get: a second one makes it abort without storing its state.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT, SIGKILL

from workers.cluster.processes import Process, group, identify


@dataclass(frozen=True, slots=True)
class Orphan:
    """The process group of a child whose agent is gone: its leader, if that lives, and all that lives of it."""

    leader: Process | None
    members: tuple[Process, ...]
    interrupted: bool


def living(children: Path) -> list[Orphan]:
    """Return the children named in this directory of which anything lives."""
    files = sorted(children.glob("[0-9]*"))
    return [orphan for orphan in map(_read, files) if orphan]


def interrupt(orphans: Iterable[Orphan]) -> None:
    """Send the one SIGINT to the leaders that did not get it from their agent."""
    for orphan in orphans:
        if orphan.leader and not orphan.interrupted:
            orphan.leader.send(SIGINT)


def kill(orphans: Iterable[Orphan]) -> None:
    """Kill whole groups: providers would outlive their terraform."""
    for orphan in orphans:
        for member in orphan.members:
            member.send(SIGKILL)


def _read(file: Path) -> Orphan | None:
    with suppress(FileNotFoundError):  # its agent, after all, took it off the record
        child = json.loads(file.read_text())
        leader = identify(child["pid"])
        # While a group has members the kernel gives its number to nobody else: another process with this pid means
        # that all of the group are gone.
        if leader is None or leader.started_at(child["started"]):
            members = tuple(group(child["pid"]))
            return Orphan(leader, members, bool(child.get("interrupted"))) if members else None
    return None
