"""Submit a run: parse what its task asks for, enter it, and start it where a slot is free."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Self

import structlog
from pydantic import ConfigDict, Field, ValidationError, model_validator

from workers import metrics
from workers.core.approval import Actor, by
from workers.core.errors import UnknownRun
from workers.git import Answer, Question
from workers.protocol import names
from workers.protocol.errors import InvalidRequest
from workers.protocol.kinds import RunKind
from workers.protocol.names import Name
from workers.protocol.run_options import RunOptions
from workers.protocol.states import StateStep
from workers.protocol.validation import problems
from workers.services.runs import deliver, sources, task_events
from workers.services.runs.dispatch import dispatch_new
from workers.services.runs.requirements import requirement
from workers.services.runs.start import NotStarted, Start, send, take_slot
from workers.services.secrets import variables
from workers.services.system import System
from workers.specs.workspaces import WorkspaceSpec
from workers.store import pools, runs, workspaces
from workers.store.models import Run, TaskMessage

log = structlog.get_logger(__name__)


class RunRequest(RunOptions):
    """What a caller asks for. ``priority``: higher runs first. ``destroy`` plans the removal of everything.

    ``message``: why the run is wanted. ``encrypted_variables``: sensitive variables of this run, a
    :class:`SensitiveVariables` that one of the platform's keys has encrypted.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    workspace: Name
    priority: int = Field(default=0, ge=-1000, le=1000)
    auto_apply: bool | None = None
    destroy: bool = False
    message: str | None = Field(default=None, max_length=500)
    encrypted_variables: str | None = Field(default=None, max_length=128_000, repr=False)

    @model_validator(mode="after")
    def _one_mode(self) -> Self:
        if self.refresh_only and (self.destroy or self.replace):
            raise ValueError("refresh_only changes no resource: it can't be combined with destroy or replace")
        if self.destroy and self.replace:
            raise ValueError("destroy removes what replace would make: choose one of them")
        return self

    @property
    def options(self) -> dict[str, Any] | None:
        """What is stored of the options; None where all have their defaults."""
        return self.model_dump(mode="json", include=set(RunOptions.model_fields), exclude_defaults=True) or None

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


def submit(
    system: System,
    run_id: str,
    kind: RunKind,
    request: RunRequest,
    task: TaskMessage,
    *,
    actor: Actor | None = None,
    step: StateStep | None = None,
    trace: str | None = None,
) -> Run:
    """Enter a run for ``actor``, and try to start it at once. The same id again returns the run that is there.

    ``step``: what it does to the state instead of planning. ``trace``: the one that it belongs to.

    ``task`` is sent again by :func:`deliver.complete`. Raises :class:`InvalidRequest` for an id or variables that can't
    be used, or a run that its workspace lets nobody confirm; :class:`UnknownWorkspace` for one that does not exist,
    :class:`UnknownVersion` for a Terraform that no agent of its pool has, and :class:`UnknownSource`.
    """
    if not names.RUN_ID.fullmatch(run_id):
        raise InvalidRequest(f"The task id {run_id!r} can't be a run's id: use letters, digits, '_' and '-'.")
    given: dict[str, Any] = {
        "kind": kind, "priority": request.priority, "destroy": request.destroy, "options": _stored(request, step),
        "message": request.message, "encrypted": request.encrypted_variables, "task": task,
        "actor": actor and actor.name, "trace": trace,
    }  # fmt: skip
    run, new, start = _entered(system, run_id, request, actor, given)
    if not run.status.is_over:
        try:  # The run is entered: an error from here on does not refuse it.
            if start is not None:
                send(system, [(run, start)])
            else:
                task_events.submitted(system, run)
                dispatch_new(system, run.pool)
                deliver.announce(system, run)  # changes nothing where the dispatcher has announced a later step
        except Exception:
            log.exception("run not started; the next tick tries again", **run.about)
    if new:
        metrics.SUBMITTED.add(run.pool, run.kind)
        log.info("run submitted", **run.about, kind=run.kind)
    return run


def find(system: System, run_id: str) -> Run | None:
    """Return the run that was submitted under this id; None where none was."""
    with suppress(UnknownRun), system.database.read() as session:
        return runs.get(session, run_id)
    return None


def _stored(request: RunRequest, step: StateStep | None) -> dict[str, Any] | None:
    if step is None:
        return request.options
    return {**(request.options or {}), "state": step.model_dump(mode="json", exclude_defaults=True)}


def _entered(
    system: System, run_id: str, request: RunRequest, actor: Actor | None, given: dict[str, Any]
) -> tuple[Run, bool, Start | None]:
    """Enter a run once its source has been looked for; return it, whether it is new, and its start."""
    at_once, answers = True, dict[Question, Answer]()
    while True:
        try:
            return _enter(system, run_id, request, actor, given, answers=answers, at_once=at_once)
        except sources.NotAsked as not_asked:
            answers[not_asked.question] = sources.ASKED.ask(not_asked.question)
        except NotStarted as error:
            log.warning("run not started as it is entered", run=run_id, workspace=request.workspace, why=str(error))
            at_once = False


def _enter(
    system: System,
    run_id: str,
    request: RunRequest,
    actor: Actor | None,
    given: dict[str, Any],
    *,
    answers: Mapping[Question, Answer],
    at_once: bool,
) -> tuple[Run, bool, Start | None]:
    """Enter a run, ``at_once`` with a slot where one is free; return it, whether it is new, and its start."""
    start, now = None, system.now()
    try:
        with system.database.begin() as session:
            found = workspaces.to_run(session, request.workspace, lock=True)
            workspace = found.spec
            expect_approvable(workspace, given["kind"], request, actor)
            variables.expect_usable(system, session, workspace, request.variables, request.encrypted_variables)
            pool = pools.to_join(session, workspace.pool)
            auto_apply = workspace.auto_apply if request.auto_apply is None else request.auto_apply
            values = {
                "workspace": workspace.name, "pool": workspace.pool, "auto_apply": auto_apply,
                "terraform": requirement(system, workspace, pool.spec, pool.programs), **given,
            }  # fmt: skip
            entered = Run(id=run_id, attempt=0, **values)
            detail, encrypted = by(actor), request.encrypted_variables
            if why := sources.expect_there(system, session, pool.spec, workspace, of_run=encrypted, answers=answers):
                detail["why"] = why
            start = take_slot(system, session, found, pool, entered) if at_once else None
            started = start and start.of(entered, now)
            run, new = runs.add(session, run_id, now=now, detail=detail or None, started=started, **values)
    except Exception:
        _give_back(system, start)
        raise
    if not new:
        _give_back(system, start)
    return run, new, start if new else None


def _give_back(system: System, start: Start | None) -> None:
    if start is not None:
        system.slots(start.pool.name).release(start.lease.run, start.lease.token)


def expect_approvable(workspace: WorkspaceSpec, kind: RunKind, request: RunRequest, actor: Actor | None) -> None:
    """Raise :class:`InvalidRequest` for a run that nobody could confirm, or one that ``auto_apply`` confirms in vain.

    A request with ``auto_apply`` is the confirmation of ``actor``, given before there is a plan.
    """
    if kind is not RunKind.PLAN_AND_APPLY or not workspace.approval.is_required:
        return
    if request.auto_apply and not workspace.approval.is_given_by(actor.name if actor else None):
        who = actor.name if actor else "this request"
        raise InvalidRequest(
            f"Workspace {workspace.name} requires an approval that {who} can't give: leave out --yes (auto_apply), and "
            "its plan waits for those who can."
        )
    if workspace.approval.four_eyes and actor is None:
        raise InvalidRequest(
            f"Workspace {workspace.name} requires that another person confirms than the one who asks, and this request "
            "does not say who asks: set TERRASLOT_ACTOR, or the header terraslot_actor of the task."
        )
