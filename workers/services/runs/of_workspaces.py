"""Workspaces as people look at them: what runs and waits there, what holds its runs, and what is known of its state."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from workers.core.errors import Unreadable
from workers.core.waiting import MaintenanceLock
from workers.protocol.plan_detail import PlanDetail
from workers.services.runs import views, waiting
from workers.services.runs.views import RunBrief, RunView, shown
from workers.services.system import System
from workers.specs.workspaces import WorkspaceSpec
from workers.store import workspace_overview, workspace_queue, workspaces
from workers.store.database import Session
from workers.store.models import Run

# Of one workspace: runs that are not over, and the latest ones, whose outcomes are counted.
_SHOWN, _RECENT = 50, 50


@dataclass(frozen=True)
class WorkspaceView:
    """One workspace in a list. ``lock``: who holds its state-changing runs for maintenance.

    ``unsaved``: the run whose state could not be saved, which holds them, too. ``unfinished``: by status, how many of
    its runs are not over.
    """

    name: str
    pool: str
    lock: MaintenanceLock | None
    unsaved: str | None
    unfinished: dict[str, int]
    last_run: RunBrief | None


@dataclass(frozen=True)
class WorkspacePage:
    """Workspaces by name, and what to ask with for the next page: ``after``; None at the end."""

    workspaces: list[WorkspaceView]
    after: str | None


@dataclass(frozen=True)
class Drift:
    """What the last plan of the whole configuration has found since the last apply: whether anything ``differs``.

    ``drifted``: how many resources have changed outside of Terraform; None where that was not told. ``changes``: what
    an apply would do, for that or for what the configuration says now.
    """

    run_id: str
    at: datetime
    refresh_only: bool
    differs: bool
    drifted: int | None
    changes: dict[str, int | None]


@dataclass(frozen=True)
class WorkspaceOverview:
    """A workspace's page. ``problem``: why its configuration can't be read; it is None then.

    ``unfinished``: its runs that are not over, with what they wait for. ``drift``: None where no plan was made since
    the last apply. ``outcomes``: how many of its latest runs ended how, or are not over yet.
    """

    name: str
    workspace: WorkspaceSpec | None
    problem: str | None
    lock: MaintenanceLock | None
    unsaved_state: str | None
    unfinished: list[RunView]
    last_applied: RunBrief | None
    drift: Drift | None
    outcomes: dict[str, int]
    recent: list[RunBrief]


def every(
    system: System, *, text: str | None = None, pool: str | None = None, after: str | None = None, limit: int = 200
) -> WorkspacePage:
    """Return a page of the workspaces, by name."""
    with system.database.read() as session:
        found = workspace_overview.read(session, text=text, pool=pool, after=after or "", limit=limit)
    shown_ones = [shown(WorkspaceView, each, last_run=views.brief(each.last) if each.last else None) for each in found]
    return WorkspacePage(shown_ones, found[-1].name if len(found) == limit else None)


def one(system: System, name: str) -> WorkspaceOverview:
    """Return a workspace as it is now. Raises :class:`UnknownWorkspace`, or an outage."""
    with system.database.read() as session:
        spec, problem = _configuration(session, name)
        lock = workspace_queue.maintenance_lock(session, name)
        unsaved = workspace_queue.unsaved(session, name)
        unfinished = [views.view(run) for run in workspace_overview.unfinished(session, name, _SHOWN)]
        applied = workspace_overview.last_applied(session, name)
        drift = _drift(workspace_overview.last_planned(session, name), applied)
        recent = workspace_overview.recent(session, name, _RECENT)
    return WorkspaceOverview(
        name,
        spec,
        problem,
        lock,
        views.unsaved_warning(unsaved) if unsaved else None,
        waiting.with_reasons(system, unfinished),
        views.brief(applied) if applied else None,
        drift,
        dict(Counter(run.status.value for run in recent)),
        [views.brief(run) for run in recent],
    )


def _configuration(session: Session, name: str) -> tuple[WorkspaceSpec | None, str | None]:
    try:
        return workspaces.get(session, name).shown, None
    except Unreadable as error:
        return None, str(error)


def _drift(planned: tuple[Run, dict[str, Any] | None] | None, applied: Run | None) -> Drift | None:
    if planned is None:
        return None
    run, detail = planned
    if run.finished_at is None or (applied and applied.finished_at and run.created_at < applied.finished_at):
        return None  # what it found may have been applied since
    drifted = None
    if detail is not None:
        drifted = sum(each.drift for each in PlanDetail.model_validate(detail).resources)
    differs = bool(drifted) or any(run.changes.values())
    refresh_only = bool((run.options or {}).get("refresh_only"))
    return Drift(run.id, run.finished_at, refresh_only, differs, drifted, run.changes)
