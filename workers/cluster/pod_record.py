"""The record of a local pod: ``pod.json`` in its directory."""

from __future__ import annotations

import itertools
import os
import stat
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from workers.cluster import agent_files
from workers.cluster.process_log import last_line
from workers.cluster.processes import Process
from workers.core.pods import Pod, PodPhase
from workers.protocol.agent_directory import APPLY, RUNS

RECORD = "pod.json"
LOG = "agent.log"
WORK = "work"
ERRORED = "errored.tfstate"  # Terraform's name for it
_RESTARTS = 3


class PodRecord(BaseModel):
    """A pod's process and its deadlines. Times are seconds since the epoch.

    ``kill_at``: its deletion was asked for, and it is killed then. ``orphans_kill_at``: it died before its children;
    they were interrupted, and are killed then. ``ended``: how the process ended, as a message. ``template``: the
    backend's at its creation; pods of 0.1 have none. ``restarts``: how often its agent was started again, and
    ``first`` its uid since then.
    """

    model_config = ConfigDict(frozen=True)

    pid: int
    started: str
    created_at: float
    kill_at: float | None = None
    orphans_kill_at: float | None = None
    phase: PodPhase = PodPhase.RUNNING
    ended: str | None = None
    template: str = ""
    restarts: int = 0
    first: str = ""

    @property
    def process(self) -> Process:
        """The agent's process."""
        return Process(self.pid, self.started)

    @property
    def uid(self) -> str:
        """What tells this pod from other pods of its name."""
        return self.first or f"{self.pid}:{self.started}"

    def is_to_go_on(self, directory: Path) -> bool:
        """Whether its agent is started again to go on with its apply: it died, and nobody wants the pod to end."""
        wanted = self.kill_at is None and self.ended is None and self.restarts < _RESTARTS
        return wanted and (directory / WORK / APPLY).exists()

    def as_pod(self, pool: str, name: str, now: float) -> Pod:
        """Return the pod as its backend lists it."""
        deleting = self.kill_at is not None
        return Pod(
            name, self.uid, pool, now - self.created_at, self.phase, deleting, self.ended, template=self.template
        )

    def write(self, directory: Path, **changes: Any) -> PodRecord:
        """Replace the record of this directory in one step by this one with ``changes``, and return it."""
        record = self.model_copy(update=changes)
        fresh = directory / f"{RECORD}.new"
        fresh.write_text(record.model_dump_json())
        fresh.replace(directory / RECORD)
        return record


def read(directory: Path) -> PodRecord | None:
    """Return the record of the pod in this directory; None if there is none that can be read."""
    try:
        return PodRecord.model_validate_json((directory / RECORD).read_text())
    except (FileNotFoundError, ValidationError):
        return None


def how_it_ended(code: int | None, log: Path) -> tuple[PodPhase, str]:
    """Return the phase and the reason for a process that ended; ``code`` is None for another process's child."""
    phase = PodPhase.SUCCEEDED if code == 0 else PodPhase.FAILED
    how = "ended" if code is None else f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    last = last_line(log)
    return phase, f"{how}: {last}" if last else how


def rescue(directory: Path, rescued: Path) -> None:
    """Move every run directory in which Terraform left a state that it could not store to ``rescued``.

    A configuration may have put links in their place: none is followed, so that nothing of others is moved. Raises
    ``OSError``, and the state is still there then.
    """
    try:
        runs = os.open(directory / WORK / RUNS, agent_files.NO_LINK | os.O_DIRECTORY)
    except OSError:
        return  # no run was executed, or what is there is no directory of runs
    try:
        for run in sorted(run for run in os.listdir(runs) if _left_a_state(run, runs)):
            rescued.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.rename(run, _unused(rescued / run), src_dir_fd=runs)
    finally:
        os.close(runs)


def _left_a_state(run: str, runs: int) -> bool:
    is_directory = stat.S_ISDIR(os.stat(run, dir_fd=runs, follow_symlinks=False).st_mode)
    return is_directory and any(ERRORED in files for _, _, files, _ in os.fwalk(run, dir_fd=runs))


def _unused(path: Path) -> Path:
    numbered = (path.with_name(f"{path.name}.{count}") for count in itertools.count(2))
    return next(found for found in itertools.chain([path], numbered) if not os.path.lexists(found))
