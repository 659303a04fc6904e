"""``confirm``, ``discard``, ``cancel``: decisions about a run."""

from collections.abc import Callable
from typing import Annotated

import typer

from workers.cli.console import say
from workers.cli.follow import Follower, Progress, is_over
from workers.cli.options import AsJson, NoWait, RunId
from workers.cli.outcome import FAILURE, INTERRUPTED, exit_code, tell
from workers.cli.system import system
from workers.core.lifecycle import RunStatus
from workers.protocol.kinds import Phase
from workers.services.runs import decide
from workers.services.runs import views as run_views
from workers.services.runs.views import RunView
from workers.slots.log_stream import LogLine

app = typer.Typer()


@app.command()
def confirm(run: RunId, no_wait: NoWait = False, as_json: AsJson = False) -> None:
    """Let the plan of a waiting run be applied, and follow the apply."""
    decided = run_views.view(decide.confirm(system(), run))
    if no_wait and not decided.status.is_over:
        tell(decided, as_json=as_json)
        return
    ended = _await_end(decided, lambda line: line.phase == Phase.APPLY, as_json=as_json)
    tell(ended, as_json=as_json)
    raise typer.Exit(exit_code(ended))


@app.command()
def discard(run: RunId, as_json: AsJson = False) -> None:
    """Refuse the plan of a waiting run."""
    _told_as_asked(run_views.view(decide.discard(system(), run)), as_json=as_json)


@app.command()
def cancel(
    run: RunId,
    force: Annotated[bool, typer.Option("--force", help="Kill terraform; its state may be lost.")] = False,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """End a run: terraform is interrupted once, and has time to store its state."""
    asked = run_views.view(decide.cancel(system(), run, force=force))
    ended = asked if no_wait or asked.status.is_over else _await_end(asked, lambda _: False, as_json=as_json)
    if ended.status is RunStatus.CANCELLED or not ended.status.is_over:
        _told_as_asked(ended, as_json=as_json)
        return
    tell(ended, as_json=as_json)
    raise typer.Exit(FAILURE)


def _told_as_asked(run: RunView, *, as_json: bool) -> None:
    """Print a run that is as it was asked for: no error, whatever its status."""
    if as_json:
        tell(run, as_json=True)
    elif run.status.is_over:
        say(f"Run {run.run_id} of workspace {run.workspace} is {run.status}.")
    else:
        say(f"Run {run.run_id} is {run.status}; it is over when terraform is gone.")


def _await_end(run: RunView, wanted: Callable[[LogLine], bool], *, as_json: bool) -> RunView:
    with Progress(errors=as_json) as progress:
        try:
            return Follower(system(), run.run_id, progress, wanted).until(is_over)
        except KeyboardInterrupt:
            progress.pause()
            progress.note(f"\nRun {run.run_id} goes on: `terraslot logs -f {run.run_id}` follows it.", "yellow")
            raise typer.Exit(INTERRUPTED) from None
