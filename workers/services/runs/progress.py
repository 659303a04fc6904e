"""How far the phases of runs have come: while they execute as their agents say on Redis, then as it is on record."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from workers.core.lifecycle import EXECUTING
from workers.protocol.kinds import Phase
from workers.protocol.progress import Progress, ResourceProgress
from workers.services.runs.views import RunView
from workers.store import progress, runs
from workers.store.database import Database
from workers.store.models import Run

if TYPE_CHECKING:
    from workers.services.system import System

State = Literal["working", "unfinished", "failed", "done"]


@dataclass(frozen=True, slots=True)
class ResourceView:
    """One change of a resource: ``unfinished`` is one whose end was not seen. ``seconds``: how long it took."""

    address: str
    action: str
    state: State
    since: datetime
    seconds: float | None


@dataclass(frozen=True, slots=True)
class ProgressView:
    """How far a phase has come. ``live``: it executes. ``step``: the command of Terraform that runs, ``since`` when.

    ``planned``: how many changes the plan has; None before that is known. The counts are of changes, too: a replacement
    has two. ``resources``: what is under way, what failed, then what is done, the latest first, or the slowest once it
    is over; ``left_out`` are not among them.
    """

    phase: Phase
    live: bool
    step: str | None
    since: datetime | None
    planned: int | None
    working: int
    failed: int
    done: int
    resources: list[ResourceView]
    left_out: int


def of(system: System, run: RunView) -> ProgressView | None:
    """Return how far a run's phase has come; None where nothing is known of it. Raises an outage."""
    return live(system, run) or stored(system.database, run)


def live(system: System, run: RunView) -> ProgressView | None:
    """Return how far the phase that executes has come; None where none does, or its agent does not say."""
    if run.status not in EXECUTING:
        return None
    with system.database.read() as session:
        now = runs.get(session, run.run_id)
    said = said_last(system, now)
    return None if said is None or now.status not in EXECUTING else _view(run, EXECUTING[now.status], said, live=True)


def stored(database: Database, run: RunView) -> ProgressView | None:
    """Return what a run's apply has done; None where it is not over, or its agent did not say."""
    if not run.status.is_over:
        return None
    with database.read() as session:
        found = progress.of(session, run.run_id)
    return None if found is None else _view(run, Phase.APPLY, found, live=False)


def said_last(system: System, run: Run) -> Progress | None:
    """Return what the agent of a run has said last of the phase that it executes, or was lost with."""
    if run.status not in EXECUTING or run.token is None:
        return None
    return system.progress(run.pool, run.id).read(run.token)


def _view(run: RunView, phase: Phase, said: Progress, *, live: bool) -> ProgressView:
    counts = [count for count in run.changes.values() if count is not None]
    counted = said.working + said.failed + said.done
    return ProgressView(
        phase,
        live,
        said.step if live else None,
        _moment(said.since) if live and said.since is not None else None,
        sum(counts) if counts and phase is Phase.APPLY else None,
        said.working,
        said.failed,
        said.done,
        [_resource(each, live=live) for each in said.resources],
        max(0, counted - len(said.resources)),
    )


def _resource(said: ResourceProgress, *, live: bool) -> ResourceView:
    return ResourceView(said.address, said.action, _state(said, live=live), _moment(said.since), said.seconds)


def _state(said: ResourceProgress, *, live: bool) -> State:
    if said.failed:
        return "failed"
    if said.seconds is not None:
        return "done"
    return "working" if live else "unfinished"


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
