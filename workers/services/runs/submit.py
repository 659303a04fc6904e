"""A run is asked for: it is entered, and started where a slot is free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
from pydantic import BaseModel, ConfigDict, Field

from workers.protocol import names
from workers.protocol.errors import InvalidRequest
from workers.protocol.kinds import RunKind
from workers.protocol.names import Name
from workers.services.runs import deliver
from workers.services.runs.dispatch import wake
from workers.services.system import System
from workers.store import runs, workspaces
from workers.store.models import Run

log = structlog.get_logger(__name__)


class RunRequest(BaseModel):
    """What a caller asks for. ``priority``: higher runs first. ``destroy`` plans the removal of everything."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workspace: Name
    priority: int = Field(default=0, ge=-1000, le=1000)
    auto_apply: bool | None = None
    destroy: bool = False


def submit(system: System, run_id: str, kind: RunKind, request: RunRequest, task: Mapping[str, Any]) -> Run:
    """Enter a run and try to start it at once. The same id again returns the run that is there.

    ``task`` is what :func:`deliver.complete` needs to send the Celery task again. Raises
    :class:`InvalidRequest` for an id that can't be used, :class:`UnknownWorkspace` for a workspace that isn't there.
    """
    if not names.RUN_ID.fullmatch(run_id):
        raise InvalidRequest(f"The task id {run_id!r} can't be a run's id: use letters, digits, '_' and '-'.")
    with system.database.begin() as session:
        workspace = workspaces.get(session, request.workspace)
        run, new = runs.add(
            session,
            id=run_id,
            workspace=workspace.name,
            pool=workspace.pool,
            kind=kind,
            priority=request.priority,
            auto_apply=workspace.auto_apply if request.auto_apply is None else request.auto_apply,
            destroy=request.destroy,
            task=dict(task),
            now=system.now(),
        )
    if new:
        log.info("run submitted", run=run.id, workspace=run.workspace, pool=run.pool, kind=run.kind)
    if not run.status.is_over:
        _set_going(system, run)
    return run


def _set_going(system: System, run: Run) -> None:
    """Give out what is free, and tell the caller. The run is there: what fails from here on must not deny that."""
    try:
        wake(system, run.pool)
        deliver.announce(system, run)  # where it was started, that has told more already
    except Exception:
        log.exception("run not started for now: the next tick tries again", run=run.id, pool=run.pool)
