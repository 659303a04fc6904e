"""Runs as people look at them: plain values, read only. Neither Celery nor Redis is loaded where the database suffices.

The fields of the views are what ``--json`` and the dashboard's JSON print, so names and meanings stay as they are.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from workers.core.errors import Unreadable
from workers.core.lifecycle import RunStatus
from workers.core.silence import waits_for
from workers.core.waiting import PUSH
from workers.protocol.errors import TerraslotError
from workers.protocol.kinds import RunKind
from workers.protocol.plan_detail import PlanDetail
from workers.store import plans, pools, run_queries, runs, states, workspace_queue, workspaces
from workers.store.database import Database
from workers.store.models import Run

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from workers.services.system import System


View = TypeVar("View", bound="DataclassInstance")


@dataclass(frozen=True, slots=True)
class RunView:
    """One run. ``actor``: who asked for it. ``started_at`` is its phase's. ``waiting``: what it waits for, where known.

    ``terraform``: the program and version that it requires; ``program``: what made its plan. The counts in ``changes``
    are None before it was planned. ``plan_destroys``: whether its plan destroys resources, those that it replaces
    included.
    """

    run_id: str
    workspace: str
    pool: str
    kind: RunKind
    status: RunStatus
    priority: int
    auto_apply: bool
    destroy: bool
    changes: dict[str, int | None]
    plan_destroys: bool
    outputs: dict[str, Any]
    agent: str | None
    slot: int | None
    attempt: int
    commit: str | None
    terraform: str | None
    program: str | None
    reason: str | None
    error: str | None
    cancel_requested: bool
    options: dict[str, Any]
    message: str | None
    actor: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    confirm_until: datetime | None
    waiting: str | None = None


@dataclass(frozen=True, slots=True)
class RunBrief:
    """A run among others. ``destroys``: how many resources its plan destroys, those that it replaces included."""

    run_id: str
    workspace: str
    kind: RunKind
    status: RunStatus
    actor: str | None
    message: str | None
    changes: dict[str, int | None]
    destroys: int
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class EventView:
    """Something that happened to a run; ``status`` is the one it had from then on."""

    at: datetime
    event: str
    status: RunStatus
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RescuedView:
    """A state that a run could not save: ``size`` in bytes, whether it is ``kept`` here, and what has become of it."""

    size: int
    kept: bool
    settled_as: str | None
    settled_at: datetime | None

    def __str__(self) -> str:
        where = "kept here" if self.kept else "on its agent"
        return f"{self.size:,} bytes, {self.settled_as or f'not saved, {where}'}"


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs are looked for; None for whatever there is. ``before``: only older ones than the run of this id.

    ``text`` is a part of a run's id, workspace, message or error.
    """

    workspace: str | None = None
    pool: str | None = None
    statuses: frozenset[RunStatus] | None = None
    kind: RunKind | None = None
    actor: str | None = None
    text: str | None = None
    before: str | None = None


def recent(database: Database, wanted: RunFilter = RunFilter(), *, limit: int = 50) -> list[RunView]:
    """Return the latest runs, newest first; also those of a workspace that was deleted.

    Raises :class:`UnknownWorkspace` or :class:`UnknownPool` where there is neither a run nor such a name, and
    :class:`UnknownRun` for an unknown ``before``.
    """
    with database.read() as session:
        before = None if wanted.before is None else run_queries.find(session, wanted.before)
        found = run_queries.recent(session, limit=limit, **asdict(wanted) | {"before": before})
        if not found and wanted.workspace is not None:
            workspaces.get(session, wanted.workspace)
        if not found and wanted.pool is not None:
            pools.get(session, wanted.pool)
    return [view(run) for run in found]


def one(database: Database, run_id: str) -> RunView:
    """Return a run by its id or a prefix that only it has. Raises :class:`UnknownRun`."""
    with database.read() as session:
        return view(run_queries.find(session, run_id))


def by_id(database: Database, run_id: str) -> RunView | None:
    """Return the run that has exactly this id."""
    with database.read() as session:
        return next(map(view, run_queries.these(session, [run_id])), None)


def events(database: Database, run: RunView) -> list[EventView]:
    """Return what happened to a run, in order."""
    with database.read() as session:
        found = run_queries.events(session, run.run_id)
    return [shown(EventView, event, detail=event.detail or {}) for event in found]


def approval(database: Database, run: RunView) -> str | None:
    """Say what a run that waits for people still needs from them; None where anybody may confirm it."""
    if run.status is not RunStatus.APPLY_PENDING:
        return None
    with database.read() as session:
        try:
            rules = workspaces.get(session, run.workspace).approval
        except Unreadable:  # says so itself, and keeps nobody from looking at its runs
            return None
        given = run_queries.approved_by(session, runs.get(session, run.run_id))
    if not rules.is_required:
        return None
    who = f"of {', '.join(rules.names)}" if rules.names else "of anybody"
    other = f" but {run.actor or 'the one who asked'}" if rules.four_eyes else ""
    so_far = f"; approved by {', '.join(given)}" if given else ""
    return f"{rules.missing(run.actor, given)} of {rules.approvals} needed, {who}{other}{so_far}"


def plan(database: Database, run: RunView) -> PlanDetail | None:
    """Return what a run's plan would do, or did, with each resource.

    None where there is no plan now, or its agent is of a version that does not tell.
    """
    if run.status is RunStatus.PENDING:
        return None  # the plan of its last attempt is gone
    with database.read() as session:
        return plans.of(session, run.run_id, run.attempt)


def rescued(database: Database, run: RunView) -> RescuedView | None:
    """Return the state that a run could not save; None where it has saved it."""
    with database.read() as session:
        record = states.of(session, run.run_id)
        kept = record is not None and record.content is not None
    return None if record is None else shown(RescuedView, record, kept=kept)


def has_met_lock(database: Database, run: RunView) -> bool:
    """Whether a lock has kept a run from its state."""
    with database.read() as session:
        return states.lock_of(session, run.run_id) is not None


def unsaved(database: Database, run: RunView) -> str | None:
    """Warn that the state of a run's workspace is not what another run has made of it; None where it is."""
    with database.read() as session:
        other = workspace_queue.unsaved(session, run.workspace)
    return None if other is None or other == run.run_id else unsaved_warning(other)


def unsaved_warning(other: str) -> str:
    """Warn that the state of a workspace is not what this run has made of it."""
    return (
        f"The state of run {other} is not saved: {PUSH.format(run=other)}. Until then, plans show as new what it made."
    )


def view(run: Run, waiting: str | None = None) -> RunView:
    """Return a run as people look at it, and what it waits for."""
    cancelled = run.cancel_mode is not None
    given = {"outputs": run.outputs or {}, "options": run.options or {}, "plan_destroys": bool(run.changes_destroy)}
    return shown(RunView, run, run_id=run.id, cancel_requested=cancelled, waiting=waiting, **given)


def brief(run: Run) -> RunBrief:
    """Return a run as it is shown among others."""
    return shown(RunBrief, run, run_id=run.id, destroys=run.changes_destroy or 0)


def shown(view: type[View], record: object, **other: Any) -> View:
    """Return a view whose fields are those of ``record``, except for the ``other`` ones."""
    same = {field.name for field in fields(view)} - other.keys()
    return view(**{name: getattr(record, name) for name in same}, **other)


def why_silent(system: System, run: RunView) -> str | None:
    """Say what a run waits for whose agent is silent; None where it is heard, or can't be asked about."""
    agent = system.slots(run.pool).agent(run.agent or "")
    if agent is None or not agent.silent:
        return None
    backend = system.pods(system.pool(run.pool))
    try:
        pod = next((pod for pod in backend.list(run.pool) if pod.name == agent.name), None)
        condition = backend.node_condition(pod.node) if pod and pod.node else None
    except TerraslotError:  # this process may have no way to the cluster
        return waits_for(agent, None)
    return waits_for(agent, pod, condition)
