"""What monitors of Celery are told of runs, Flower among them: task events, with the agent as the worker.

The worker that took a run's task has ended it long before the run is over, so its own events would tell of another
thing; they are off. The control plane sends these instead, after its commit: agents have no right to. A run is received
when it is submitted, started when Terraform starts, and ends as the run ends. In between its state is that of its
task: PLANNING, APPLY_PENDING, APPLYING; RETRY, where it lost its agent. The order of the states is Celery's own: an
event that comes late never takes back the end of a run.

Each event says what the run is, so that whoever begins to listen needs none of those before.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from celery import Task, states
from celery.utils.saferepr import saferepr

from workers.core.errors import RunError
from workers.core.lifecycle import RunEvent, RunNote, RunStatus
from workers.protocol import names
from workers.protocol.run_options import RunOptions
from workers.services.runs.outcome import outcome
from workers.services.system import System
from workers.store import run_queries
from workers.store.models import Run, RunEventRecord

Event = dict[str, Any]

# As Celery bounds what it shows of arguments and results.
_LONGEST = 1024
# What is shown of a task's arguments: every other value is left out, as one that nobody expects may be a secret.
_SHOWN = frozenset({"workspace", "priority", "auto_apply", "destroy", "message", "run_id", *RunOptions.model_fields})
_STARTED = frozenset({RunNote.PLAN_STARTED, RunNote.APPLY_STARTED})
_MOVED = frozenset(RunEvent)


def started(system: System, begun: Iterable[Run | None]) -> None:
    """Tell that Terraform has started for runs; the apply of one goes on with what its plan has begun."""
    if of := [run for run in begun if run is not None and run.status is RunStatus.PLANNING]:
        system.events.send(lambda: [_event(run, "started", run.started_at or run.updated_at) for run in of])


def submitted(system: System, run: Run) -> None:
    """Tell that a run was submitted and waits; before it is given to an agent."""
    system.events.send(lambda: [_received(run)])


def moved(system: System, run: Run) -> None:
    """Tell where a run stands that is not over; what has been submitted alone is told by :func:`submitted`."""
    if run.status is not RunStatus.PENDING or run.attempt:
        # The agent that is given it has received it, too.
        tells = (_received, standing) if run.status is RunStatus.PLANNING else (standing,)
        system.events.send(lambda: [tell(run) for tell in tells])


def over(system: System, ended: Sequence[Run]) -> None:
    """Tell how runs have ended."""
    system.events.send(lambda: endings(system, ended))


def refused(system: System, task: Task, error: BaseException) -> None:
    """Tell that the task of a run was refused: there is no run."""
    request = task.request
    asked = _arguments(request.args or (), request.kwargs or {}, with_options=False)
    about = {"uuid": request.id, "name": task.name, "hostname": request.hostname, **asked}
    failed = about | {"type": "task-failed", "exception": saferepr(error, _LONGEST)}
    system.events.send(lambda: [about | {"type": "task-received"}, failed])


def standings(system: System, limit: int) -> dict[str, tuple[str, float]]:
    """Return the state, and since when, of the tasks of the latest of those runs that are not over."""
    with system.database.read() as session:
        found = run_queries.standings(session, limit)
    return {run.id: (state_of(run.status, run.attempt), run.updated_at.timestamp()) for run in found}


def state_of(status: RunStatus, attempt: int) -> str:
    """Return the state in which monitors see a run that is not over, once they have heard of it."""
    if status is RunStatus.PENDING:
        return str(states.RETRY if attempt else states.RECEIVED)
    return status.celery_state


def latest(system: System, run_ids: Collection[str]) -> list[Event]:
    """Return the last event of each of these runs."""
    with system.database.read() as session:
        found = run_queries.these(session, run_ids)
    going_on = [standing(run) for run in found if not run.status.is_over]
    return going_on + endings(system, [run for run in found if run.status.is_over])


def standing(run: Run) -> Event:
    """Return the event that tells where a run stands that is not over."""
    if run.status is not RunStatus.PENDING:
        return _event(run, run.status.value, run.updated_at)
    return _event(run, "retried", run.updated_at, exception="its agent was lost") if run.attempt else _received(run)


def endings(system: System, ended: Sequence[Run]) -> list[Event]:
    """Return the events that tell how runs have ended, with the time that Terraform has taken."""
    if not ended:
        return []
    with system.database.read() as session:
        happened = run_queries.events_of(session, [run.id for run in ended])
    return [_ending(run, terraform_seconds(happened.get(run.id, ()))) for run in ended]


def terraform_seconds(happened: Iterable[RunEventRecord]) -> float:
    """Return how long the phases of a run's last attempt have taken: what it waited for a person is no part of it."""
    seconds, since = 0.0, None
    for event in happened:
        if event.event in _STARTED:
            since = event.at
        elif event.event == RunEvent.DISPATCHED:
            seconds, since = 0.0, None
        elif event.event in _MOVED and since is not None:
            seconds, since = seconds + (event.at - since).total_seconds(), None
    return seconds


def _received(run: Run) -> Event:
    return _event(run, "received", run.created_at)


def _ending(run: Run, seconds: float) -> Event:
    at = run.finished_at or run.updated_at
    try:
        return _event(run, "succeeded", at, result=saferepr(outcome(run), _LONGEST), runtime=seconds)
    except RunError as error:
        return _event(run, "failed", at, exception=saferepr(error, _LONGEST), runtime=seconds)


def _event(run: Run, kind: str, at: datetime, **facts: Any) -> Event:
    options = run.task["options"]
    return {
        "type": f"task-{kind}",
        "uuid": run.id,
        "name": run.task["name"],
        "hostname": names.node_name(run.pool, run.agent) if run.agent else _taken_by(run),
        "timestamp": at.timestamp(),
        "received": run.created_at.timestamp(),
        "retries": max(run.attempt - 1, 0),
        **{name: options[name] for name in ("root_id", "parent_id") if options.get(name)},
        **_arguments(run.task["args"], run.task["kwargs"], workspace=run.workspace),
        **facts,
    }


def _taken_by(run: Run) -> str:
    return run.task.get("node", "terraslot")  # a run of 0.1 does not say


def _arguments(
    args: Any, kwargs: Mapping[str, Any], *, workspace: str | None = None, with_options: bool = True
) -> dict[str, str]:
    """Return what a task was asked for, as it is shown. What precedes the workspace came from another task."""
    positional = (workspace or "…",) if args and "workspace" not in kwargs else ()
    options = frozenset() if with_options else RunOptions.model_fields.keys()
    named = {name: value if name in _SHOWN - options else "…" for name, value in kwargs.items()}
    return {"args": saferepr(positional, _LONGEST), "kwargs": saferepr(named, _LONGEST)}
