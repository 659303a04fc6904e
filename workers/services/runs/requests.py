"""Ask for runs and decide about them as every caller does: by messages, in somebody's name, that a worker takes."""

import time
from dataclasses import dataclass, fields
from typing import Any

from celery.exceptions import TaskRevokedError
from celery.exceptions import TimeoutError as NoAnswer

from workers.core.approval import Actor
from workers.core.lifecycle import RunStatus
from workers.protocol import names
from workers.protocol.errors import Unavailable
from workers.protocol.kinds import RunKind
from workers.services.runs import views
from workers.services.runs.requirements import required
from workers.services.runs.submit import RunRequest, expect_approvable
from workers.services.runs.views import RunView
from workers.services.system import System
from workers.slots.redis_server import clock
from workers.store import workspaces

# Seconds. A request that no worker has taken by then is void, so that nothing happens after its caller has gone.
_TAKEN_WITHIN, _ANSWERED_WITHIN = 20.0, 30.0
_LOOK = 0.02


@dataclass(frozen=True)
class Decided:
    """A run as the control plane answered a decision about it: the result of its task."""

    run_id: str
    workspace: str
    status: RunStatus
    changes: dict[str, int | None]
    outputs: dict[str, Any]
    agent: str | None
    slot: int | None
    attempt: int


def enqueue(
    system: System, kind: RunKind, request: RunRequest, run_id: str, actor: Actor | None, *, trace: str | None = None
) -> None:
    """Send the task of a run. ``trace``: the traceparent that its caller has sent, whatever it is.

    Raises what can be known to be wrong before: :class:`UnknownWorkspace`, :class:`UnknownVersion`,
    :class:`InvalidRequest` for a run that nobody could confirm, redis-py's errors.
    """
    with system.database.read() as session:
        spec = workspaces.get(session, request.workspace)
        required(system, session, spec)
    expect_approvable(spec, kind, request, actor)
    clock(system.redis)  # Celery would try for twenty seconds to reach a result backend that isn't there
    asked = request.model_dump(mode="json", exclude_defaults=True)
    task = names.PLAN if kind is RunKind.PLAN else names.PLAN_AND_APPLY
    known = {names.TRACE_HEADER: trace} if trace and names.TRACEPARENT.fullmatch(trace) else {}
    system.celery.send_task(task, kwargs=asked, task_id=run_id, headers=_headers(actor) | known)


def change_state(
    system: System, task: str, of_run: str, run_id: str, actor: Actor | None, *, message: str | None
) -> None:
    """Send the task of a run, ``run_id``, that pushes another's state or ends its lock. Raises redis-py's errors."""
    clock(system.redis)
    asked = {"run_id": of_run} | ({"message": message} if message else {})
    system.celery.send_task(task, kwargs=asked, task_id=run_id, headers=_headers(actor))


def entered(system: System, run_id: str, patience: float) -> RunView | None:
    """Return a run once a worker has entered it; None after ``patience`` seconds. Raises why its task was refused."""
    until = time.monotonic() + patience
    while (run := views.by_id(system.database, run_id)) is None:
        system.celery.AsyncResult(run_id).maybe_throw()
        if time.monotonic() > until:
            return None
        time.sleep(_LOOK)
    return run


def decide(system: System, task: str, run: str, actor: Actor | None, **options: Any) -> Decided:
    """Send a decision about a run, and return the run as it is then.

    Raises what the task raises, and :class:`Unavailable` where no worker answers.
    """
    clock(system.redis)
    given = {name: value for name, value in options.items() if value is not None}  # 0.1 knows no message
    request = system.celery.send_task(task, args=[run], kwargs=given, headers=_headers(actor), expires=_TAKEN_WITHIN)
    try:
        answer = request.get(timeout=_ANSWERED_WITHIN)
    except (NoAnswer, TaskRevokedError):
        raise Unavailable(
            f"No worker has answered within {_ANSWERED_WITHIN:g} s: see `terraslot doctor`. "
            f"How the run stands is told by `terraslot show {run}`."
        ) from None
    return decided(answer)


def decided(answer: dict[str, Any]) -> Decided:
    """Return the result of a decision's task as a value."""
    known = {field.name: answer[field.name] for field in fields(Decided)}
    return Decided(**known | {"status": RunStatus(answer["status"])})


def _headers(actor: Actor | None) -> dict[str, str]:
    return {names.ACTOR_HEADER: actor.name} if actor else {}
