"""The Celery tasks of the control plane: a few lines each over a service.

All of them are safe twice. ``terraform.plan`` and ``terraform.plan_and_apply`` are executed once when they are
enqueued and once more when their run is over; see :mod:`workers.services.runs.deliver`.
"""

from collections.abc import Callable
from typing import Any

from celery import Task
from celery.exceptions import Ignore

from workers import traces
from workers.app import app
from workers.core.approval import Actor, Origin
from workers.core.confirmation import DEFAULT_EXTENSION
from workers.core.errors import RunError
from workers.protocol import names
from workers.protocol.errors import InvalidRequest, TerraslotError
from workers.protocol.kinds import RunKind
from workers.protocol.states import StateStep
from workers.remote_control import ControlRequest, decision_id, is_revoked
from workers.services.runs import auto_apply, decide, deliver, locks, logs, rescued, retention, states, submit
from workers.services.runs import dispatch as dispatcher
from workers.services.runs.outcome import outcome
from workers.services.runs.submit import RunRequest
from workers.services.runs.task_events import refused
from workers.services.scaling import cycle
from workers.services.system import system
from workers.store.models import Run, TaskMessage

_NOT_SENT_AGAIN = ("expires", "headers", "origin", "soft_time_limit", "time_limit")


# As a callback for errors, a run is sent like any other task, with the id of the task that failed. Celery would call a
# task of more arguments at once, in the place where the other one failed.
_AS_ERRBACK = {"__header__": staticmethod(lambda failed: failed), "typing": False}


class ControlTask(Task):
    """A task whose messages are never discarded as revoked."""

    Request = ControlRequest


class RunTask(ControlTask):
    """A task that lasts as long as its run, which has events of its own."""

    send_events = False

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:  # noqa: ARG002
        """Store the delivery once Celery has stored the result."""
        deliver.delivered(system(), [task_id])

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:  # noqa: ARG002
        """Store the delivery once Celery has stored the error, if that is how the run ended."""
        if isinstance(exc, RunError):
            deliver.delivered(system(), [task_id])
        elif not self.request.get(deliver.OUTCOME):
            refused(system(), self, exc)


@app.task(name=names.PLAN, bind=True, base=RunTask, throws=TerraslotError, **_AS_ERRBACK)
def plan(self: Task, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Plan a workspace: ``plan(workspace, priority=0, destroy=False)``. The result is the run's."""
    return _run(self, RunKind.PLAN, args, kwargs)


@app.task(name=names.PLAN_AND_APPLY, bind=True, base=RunTask, throws=TerraslotError, **_AS_ERRBACK)
def plan_and_apply(self: Task, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Plan a workspace, wait for a confirmation (unless ``auto_apply``), and apply that plan."""
    return _run(self, RunKind.PLAN_AND_APPLY, args, kwargs)


@app.task(name=names.UNLOCK, bind=True, base=RunTask, throws=TerraslotError, **_AS_ERRBACK)
def unlock(self: Task, run_id: str, message: str | None = None) -> dict[str, Any]:
    """End the lock that a run has met, if its holder is a run that is dead. The result is that of the run that does."""
    return _change_state(self, locks.unlock, run_id, message)


@app.task(name=names.STATE_PUSH, bind=True, base=RunTask, throws=TerraslotError, **_AS_ERRBACK)
def state_push(self: Task, run_id: str, message: str | None = None) -> dict[str, Any]:
    """Push the state that a run could not save to its backend. The result is that of the run that does."""
    return _change_state(self, states.push, run_id, message)


@app.task(name=names.STATE_GIVE_UP, bind=True, base=ControlTask, throws=TerraslotError)
def state_give_up(self: Task, run_id: str, message: str | None = None) -> dict[str, Any]:
    """Let the runs of a workspace go on without the state that a run could not save."""
    return decide.deduplicate(system(), run_id, _origin(self, message), states.give_up)


@app.task(name=names.CONFIRM, bind=True, base=ControlTask, throws=TerraslotError)
def confirm(self: Task, run_id: str, attempt: int | None = None, message: str | None = None) -> dict[str, Any]:
    """Let the plan of a waiting run be applied; with ``attempt``, no other than the one of that attempt."""
    return decide.deduplicate(system(), run_id, _origin(self, message), decide.confirm, attempt=attempt)


@app.task(name=names.DISCARD, bind=True, base=ControlTask, throws=TerraslotError)
def discard(self: Task, run_id: str, message: str | None = None) -> dict[str, Any]:
    """Refuse the plan of a waiting run."""
    return decide.deduplicate(system(), run_id, _origin(self, message), decide.discard)


@app.task(name=names.CANCEL, bind=True, base=ControlTask, throws=TerraslotError)
def cancel(self: Task, run_id: str, force: bool = False, message: str | None = None) -> dict[str, Any]:
    """End a run; ``force`` kills terraform instead of interrupting it."""
    return decide.deduplicate(system(), run_id, _origin(self, message), decide.cancel, force=force)


@app.task(name=names.EXTEND, bind=True, base=ControlTask, throws=TerraslotError)
def extend(self: Task, run_id: str, seconds: float = DEFAULT_EXTENSION, message: str | None = None) -> dict[str, Any]:
    """Let the plan of a waiting run wait so much longer for a person."""
    return decide.deduplicate(system(), run_id, _origin(self, message), decide.extend, seconds=seconds)


@app.task(name=names.REVOKE, bind=True, base=ControlTask, ignore_result=True, send_events=False, throws=TerraslotError)
def revoke(self: Task, run_id: str, force: bool = False) -> None:
    """Cancel a run that was revoked; every control worker that hears of it asks for the same decision."""
    decide.revoke(system(), run_id, self.request.id, force=force)


def _serve(name: str, service: Callable[..., object]) -> None:
    """Register a task that calls ``service`` with this process's system and its own arguments."""

    @app.task(name=name, ignore_result=True, send_events=False, throws=TerraslotError)
    def task(*args: str) -> None:
        service(system(), *args)


def _serve_cluster(name: str, service: Callable[..., object]) -> None:
    """Register such a task for the cluster's queue. It passes on what 0.1 has sent to the control queue."""

    @app.task(name=name, bind=True, ignore_result=True, send_events=False, throws=TerraslotError)
    def task(self: Task, *args: str) -> None:
        if self.request.delivery_info["routing_key"] == names.CONTROL_QUEUE:
            app.send_task(name, args=args, expires=self.request.expires)
        else:
            service(system(), *args)


# No caller waits for these, and Flower need not show them: events cost a task more than a round trip.
_serve(names.DISPATCH, dispatcher.dispatch_requested)
_serve(names.AUTO_APPLY, auto_apply.order_apply)
_serve(names.DISPATCHES, cycle.dispatches)
_serve(names.DELIVERIES, deliver.deliver_overdue)
_serve(names.FORGET, retention.purge)
_serve(names.LOGS, logs.move_logs)
_serve(names.STATES, rescued.reencrypt)
_serve_cluster(names.CYCLE, cycle.cycle)
_serve_cluster(names.CYCLES, cycle.cycles)
_serve_cluster(names.SCALE, cycle.scale_for_waiting)
_serve_cluster(names.PROTECT, cycle.protect)
_serve_cluster(names.SWEEP, cycle.sweep)


def _run(task: Task, kind: RunKind, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Submit a run; or return its outcome, or raise it, where the run is over."""
    return _outcome(task, lambda: _submit(task, kind, args, kwargs))


def _outcome(task: Task, submitted: Callable[[], Run]) -> dict[str, Any]:
    if task.request.get(deliver.OUTCOME) or submitted().status.is_over:
        run = deliver.claim(system(), task.request.id)
        if run is not None:
            return outcome(run)
    raise Ignore


def _change_state(task: Task, decided: Callable[..., Any], run_id: str, message: str | None) -> dict[str, Any]:
    """Submit a run that changes a state, where that is decided to be right; or return the outcome of one that is over.

    A second delivery finds the run, and decides nothing any more.
    """
    kwargs = {"run_id": run_id, "message": message}

    def submitted() -> Run:
        if (there := submit.find(system(), task.request.id)) is not None:
            return there
        workspace, step = decided(system(), run_id)
        return _enter(task, RunKind.PLAN, RunRequest.of_task((workspace,), {"message": message}), (), kwargs, step=step)

    return _outcome(task, submitted)


def _submit(task: Task, kind: RunKind, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Run:
    request = RunRequest.of_task(args, kwargs, follows=task.request.parent_id is not None)
    return _enter(task, kind, request, args, kwargs)


def _enter(
    task: Task,
    kind: RunKind,
    request: RunRequest,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    step: StateStep | None = None,
) -> Run:
    if any(task.request.timelimit or ()):
        raise InvalidRequest("Celery's time limits do not bound a run: set the timeouts of its pool instead.")
    message = TaskMessage(
        name=task.name, args=list(args), kwargs=kwargs, options=_options(task), node=task.request.hostname
    )
    began, trace = system().now(), traces.new(task.request.get(names.TRACE_HEADER))
    run = submit.submit(system(), task.request.id, kind, request, message, actor=_actor(task), step=step, trace=trace)
    traces.draw("submit", run, began, system().now())
    if is_revoked(run.id):
        decide.revoke(system(), run.id, decision_id(run.id, force=False))
    return run


def _origin(task: Task, message: str | None) -> Origin:
    return Origin(task.request.id, _actor(task), message)


def _actor(task: Task) -> Actor | None:
    """Return who the sender of a message says that it is."""
    name = task.request.get(names.ACTOR_HEADER)
    return None if name is None else Actor(name)


def _options(task: Task) -> dict[str, Any]:
    options = task.request.as_execution_options()
    return {key: value for key, value in options.items() if value is not None and key not in _NOT_SENT_AGAIN}
