"""Submit a run: parse what its task asks for, enter it, and start it where a slot is free."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workers.protocol import names
from workers.protocol.errors import InvalidRequest
from workers.protocol.kinds import RunKind
from workers.protocol.names import Name
from workers.protocol.validation import problems
from workers.services.runs import deliver
from workers.services.runs.dispatch import dispatch_new
from workers.services.system import System
from workers.store import runs, workspaces
from workers.store.models import Run, TaskMessage

log = structlog.get_logger(__name__)


class RunRequest(BaseModel):
    """What a caller asks for. ``priority``: higher runs first. ``destroy`` plans the removal of everything."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workspace: Name
    priority: int = Field(default=0, ge=-1000, le=1000)
    auto_apply: bool | None = None
    destroy: bool = False

    @classmethod
    def of_task(cls, args: Sequence[Any], kwargs: Mapping[str, Any], *, follows: bool = False) -> Self:
        """Return what a task's arguments ask for: a workspace, by position or by name, and options by name.

        Where it ``follows`` another task, Celery puts what that one returned in front of the arguments: that is
        ignored, whatever it is. Raises :class:`InvalidRequest`.
        """
        named = dict(kwargs)
        positional = list(args)
        if follows and len(positional) + ("workspace" in named) > 1:
            del positional[0]
        if len(positional) == 1 and "workspace" not in named:
            named["workspace"] = positional[0]
        elif positional:
            raise InvalidRequest(f"One workspace is expected, and options by name; got the arguments {args!r}.")
        try:
            return cls.model_validate(named)
        except ValidationError as error:
            raise InvalidRequest(f"The request is invalid: {'; '.join(problems(error, values=True))}.") from None


def submit(system: System, run_id: str, kind: RunKind, request: RunRequest, task: TaskMessage) -> Run:
    """Enter a run and try to start it at once. The same id again returns the run that is there.

    ``task`` is sent again by :func:`deliver.complete`. Raises :class:`InvalidRequest` for an id that can't be used,
    :class:`UnknownWorkspace` for a workspace that does not exist.
    """
    if not names.RUN_ID.fullmatch(run_id):
        raise InvalidRequest(f"The task id {run_id!r} can't be a run's id: use letters, digits, '_' and '-'.")
    with system.database.begin() as session:
        workspace = workspaces.get(session, request.workspace)
        run, new = runs.add(
            session, run_id, workspace=workspace.name, pool=workspace.pool, kind=kind, now=system.now(),
            priority=request.priority, destroy=request.destroy, task=task,
            auto_apply=workspace.auto_apply if request.auto_apply is None else request.auto_apply,
        )  # fmt: skip
    if new:
        log.info("run submitted", run=run.id, workspace=run.workspace, pool=run.pool, kind=run.kind)
    if not run.status.is_over:
        try:  # The run is entered: an error from here on does not refuse it.
            dispatch_new(system, run.pool)
            deliver.announce(system, run)  # changes nothing where the dispatcher has announced a later step
        except Exception:
            log.exception("run not started; the next tick tries again", run=run.id, pool=run.pool)
    return run
