"""The demo: one run from a cold start to its result, by the ways that every caller has."""

import uuid
from pathlib import Path
from typing import Any

from workers.cli.console import complain, console, say
from workers.cli.follow import Follower, Progress, is_over, waits_or_is_over
from workers.cli.outcome import FAILURE, changes, exit_code, tell, tell_outputs
from workers.cli.slots import slots_tables
from workers.cli.system import system
from workers.core.errors import NameTaken
from workers.core.lifecycle import RunStatus
from workers.protocol import names
from workers.protocol.sources import DirectorySource
from workers.services import workspaces
from workers.services.pools import views as pool_views
from workers.services.runs.views import RunView
from workers.specs.workspaces import WorkspaceSpec

WORKSPACE = "hello"
_ANSWER_SECONDS = 30


def tour(source: Path) -> int:
    """Plan, confirm and apply the configuration in ``source``; return the demo's exit code."""
    _create_workspace(source)
    _show_slots()
    run_id = str(uuid.uuid4())
    _step(f'app.send_task("{names.PLAN_AND_APPLY}", kwargs={{"workspace": "{WORKSPACE}"}})')
    result = system().celery.send_task(names.PLAN_AND_APPLY, kwargs={"workspace": WORKSPACE}, task_id=run_id)
    with Progress() as progress:
        follower = Follower(system(), run_id, progress)
        follower.until_entered()
        planned = follower.until(waits_or_is_over)
        if planned.status is not RunStatus.APPLY_PENDING:
            return _end_without_apply(planned)
        _show_slots()
        _confirm(planned)
        applied = follower.until(is_over)
    if applied.status is not RunStatus.SUCCEEDED:
        tell(applied, as_json=False)
        return FAILURE
    return _compare(planned, applied, result.get(timeout=_ANSWER_SECONDS))


def _create_workspace(source: Path) -> None:
    spec = WorkspaceSpec(name=WORKSPACE, source=DirectorySource(path=str(source)))
    _step(f"terraslot workspace create {WORKSPACE} --path {source}")
    try:
        workspaces.create(system(), spec)
    except NameTaken:
        workspaces.update(system(), spec)
        say("  It is there from an earlier demo, and so is its state.", style="dim")


def _end_without_apply(run: RunView) -> int:
    if run.status is RunStatus.SUCCEEDED:
        say("No changes: what an earlier demo applied is still as the configuration says.", style="green")
        tell_outputs(run)
    else:
        tell(run, as_json=False)
    return exit_code(run)


def _confirm(run: RunView) -> None:
    say(f"{changes(run).capitalize()}. Slot {run.slot} of {run.agent} keeps the plan until a person has decided.")
    _step(f'app.send_task("{names.CONFIRM}", args=["{run.run_id}"])')
    system().celery.send_task(names.CONFIRM, args=[run.run_id]).get(timeout=_ANSWER_SECONDS)


def _compare(planned: RunView, applied: RunView, result: dict[str, Any]) -> int:
    """Show what the caller's Celery result holds, and that the plan was applied where it was made."""
    _step("result.get()")
    tell(applied, as_json=False)
    if not (planned.agent, planned.slot) == (applied.agent, applied.slot) == (result["agent"], result["slot"]):
        complain(f"The plan was made by {planned.agent}, but applied by {applied.agent}.")
        return FAILURE
    say(f"{applied.agent} applied, in slot {applied.slot} and in the same directory, the plan that it had made.")
    return exit_code(applied)


def _show_slots() -> None:
    say("")
    console().print(slots_tables(pool_views.every(system())))
    say("")


def _step(command: str) -> None:
    say(f"> {command}", style="bold cyan")
