"""``plan`` and ``apply``: enqueue a run, follow it, ask a person."""

import uuid
from typing import Annotated, Any

import typer

from workers.cli.console import is_interactive, say, show_json
from workers.cli.follow import Follower, Progress, waits_or_is_over
from workers.cli.options import AsJson, Destroy, NoWait, Priority, WorkspaceName
from workers.cli.outcome import INTERRUPTED, changes, exit_code, tell
from workers.cli.system import system
from workers.core.errors import AgentGone, NotWaiting
from workers.core.lifecycle import RunStatus
from workers.protocol import names
from workers.services import workspaces
from workers.services.runs import decide
from workers.services.runs.views import RunView

app = typer.Typer()

_ENTRY_PATIENCE = 5.0
_LATER = "later"


@app.command()
def plan(
    workspace: WorkspaceName,
    *,
    destroy: Destroy = False,
    priority: Priority = 0,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Plan a workspace: show what an apply would change."""
    run_id = _enqueue(names.PLAN, workspace, priority=priority, destroy=destroy)
    if no_wait:
        _leave(run_id, workspace, as_json=as_json)
        return
    _finish(_follow(run_id, yes=False, ask=False, as_json=as_json), as_json=as_json)


@app.command()
def apply(
    workspace: WorkspaceName,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Confirm what it planned, without asking.")] = False,
    destroy: Destroy = False,
    priority: Priority = 0,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Plan a workspace, ask for a confirmation, and apply that very plan."""
    # This command does not wait for the plan, so the run confirms itself.
    alone = {"auto_apply": True} if yes and no_wait else {}
    run_id = _enqueue(names.PLAN_AND_APPLY, workspace, priority=priority, destroy=destroy, **alone)
    if no_wait:
        _leave(run_id, workspace, as_json=as_json)
        return
    ask = is_interactive() and not as_json
    _finish(_follow(run_id, yes=yes, ask=ask, as_json=as_json), as_json=as_json)


def _enqueue(task: str, workspace: str, **options: Any) -> str:
    """Send the task of a run; return the run's id. Raises :class:`UnknownWorkspace` before anything is sent."""
    spec = workspaces.get(system(), workspace)
    # Celery would try for twenty seconds to reach a result backend that isn't there.
    system().slots(spec.pool).stats()
    run_id = str(uuid.uuid4())
    system().celery.send_task(task, kwargs={"workspace": workspace, **options}, task_id=run_id)
    return run_id


def _leave(run_id: str, workspace: str, *, as_json: bool) -> None:
    with Progress(errors=True) as progress:
        run = Follower(system(), run_id, progress).until_entered(_ENTRY_PATIENCE)
    if run is not None and as_json:
        show_json(run)
    elif run is not None:
        tell(run, as_json=False)
    elif as_json:
        show_json({"run_id": run_id, "workspace": workspace, "status": RunStatus.PENDING})
    else:
        say(f"Run {run_id} is enqueued; no worker has taken it yet.")


def _follow(run_id: str, *, yes: bool, ask: bool, as_json: bool) -> RunView:
    """Follow a run until it is over, or left waiting for a decision."""
    with Progress(errors=as_json) as progress:
        follower = Follower(system(), run_id, progress)
        progress.note(f"Run {run_id}", style="bold")
        try:
            follower.until_entered()
            run = follower.until(waits_or_is_over)
            while run.status is RunStatus.APPLY_PENDING and (yes or ask):
                answer = "yes" if yes else _ask(run)
                if answer == _LATER:
                    break
                _decide(run, answer, progress)
                run = follower.until(waits_or_is_over)
        except (KeyboardInterrupt, typer.Abort):
            progress.pause()
            progress.note(f"\nRun {run_id} goes on: `terraslot cancel {run_id}` ends it.", "yellow")
            raise typer.Exit(INTERRUPTED) from None
    return run


def _ask(run: RunView) -> str:
    say(f"Run {run.run_id} waits for a confirmation: {changes(run)}.", style="bold")
    while True:
        answer = str(typer.prompt("Apply this plan? (yes, no: refuse it, later: leave it waiting)")).strip().lower()
        for known in ("yes", "no", _LATER):
            if answer and known.startswith(answer):
                return known


def _decide(run: RunView, answer: str, progress: Progress) -> None:
    try:
        if answer == "yes":
            decide.confirm(system(), run.run_id, attempt=run.attempt)
        else:
            decide.discard(system(), run.run_id)
    except (NotWaiting, AgentGone) as error:
        progress.note(str(error), "yellow")


def _finish(run: RunView, *, as_json: bool) -> None:
    tell(run, as_json=as_json)
    raise typer.Exit(exit_code(run))
