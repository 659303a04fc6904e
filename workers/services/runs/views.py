"""Runs as people look at them: plain values, read only, from the database alone.

Their fields are what ``--json`` and the dashboard's JSON print, so names and meanings stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from workers.core.lifecycle import RunStatus
from workers.protocol.kinds import RunKind
from workers.store import pools, runs, workspaces
from workers.store.database import Database
from workers.store.models import Run, RunEventRecord


@dataclass(frozen=True, slots=True)
class RunView:
    """One run. The counts in ``changes`` are None before it was planned; ``started_at`` is its phase's."""

    run_id: str
    workspace: str
    pool: str
    kind: RunKind
    status: RunStatus
    priority: int
    auto_apply: bool
    destroy: bool
    changes: dict[str, int | None]
    outputs: dict[str, Any]
    agent: str | None
    slot: int | None
    attempt: int
    commit: str | None
    reason: str | None
    error: str | None
    cancel_requested: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    confirm_until: datetime | None


@dataclass(frozen=True, slots=True)
class EventView:
    """Something that happened to a run; ``status`` is the one it had from then on."""

    at: datetime
    event: str
    status: RunStatus
    detail: dict[str, Any]


def recent(
    database: Database,
    *,
    workspace: str | None = None,
    pool: str | None = None,
    statuses: frozenset[RunStatus] | None = None,
    limit: int = 50,
) -> list[RunView]:
    """Return the latest runs, newest first; also those of a workspace that was deleted.

    Raises :class:`UnknownWorkspace` or :class:`UnknownPool` where there is neither a run nor such a name.
    """
    with database.read() as session:
        found = runs.recent(session, workspace=workspace, pool=pool, statuses=statuses, limit=limit)
        if not found and workspace is not None:
            workspaces.get(session, workspace)
        if not found and pool is not None:
            pools.get(session, pool)
    return [view(run) for run in found]


def one(database: Database, run_id: str) -> RunView:
    """Return a run by its id or a prefix that only it has. Raises :class:`UnknownRun`."""
    with database.read() as session:
        return view(runs.find(session, run_id))


def events(database: Database, run: RunView) -> list[EventView]:
    """Return what happened to a run, in order."""
    with database.read() as session:
        return [_event(record) for record in runs.events(session, run.run_id)]


def view(run: Run) -> RunView:
    """Return a run as people look at it."""
    return RunView(
        run_id=run.id,
        workspace=run.workspace,
        pool=run.pool,
        kind=run.kind,
        status=run.status,
        priority=run.priority,
        auto_apply=run.auto_apply,
        destroy=run.destroy,
        changes=run.changes,
        outputs=run.outputs or {},
        agent=run.agent,
        slot=run.slot,
        attempt=run.attempt,
        commit=run.commit,
        reason=run.reason,
        error=run.error,
        cancel_requested=run.cancel_mode is not None,
        created_at=run.created_at,
        started_at=run.started_at,
        finished_at=run.finished_at,
        confirm_until=run.confirm_until,
    )


def _event(record: RunEventRecord) -> EventView:
    return EventView(record.at, record.event, record.status, record.detail or {})
