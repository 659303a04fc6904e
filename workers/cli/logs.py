"""``logs``: what terraform printed, and prints."""

import json
from typing import Annotated

import typer

from workers.cli.console import plain, say, show_json
from workers.cli.follow import Follower, Progress, is_over
from workers.cli.options import AsJson, RunId
from workers.cli.outcome import INTERRUPTED, STYLES
from workers.cli.system import system
from workers.services.runs import views as run_views
from workers.services.runs.views import RunView
from workers.slots.log_stream import LogLine

app = typer.Typer()


@app.command()
def logs(
    run: RunId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run is over.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print what terraform printed. As JSON: a list of lines, or with --follow a document a line."""
    found = run_views.one(system().database, run)
    if follow:
        _follow(found, as_json=as_json)
        return
    lines = _all_lines(found)
    if as_json:
        show_json([plain(line) for line in lines])
        return
    for line in lines:
        say(line.text)
    if not lines:
        say(f"Run {found.run_id} has no log: it has printed nothing, or too long ago.", errors=True)


def _all_lines(run: RunView) -> list[LogLine]:
    lines: list[LogLine] = []
    while more := run_views.log_lines(system(), run, after=lines[-1].id if lines else "0"):
        lines += more
    return lines


def _follow(run: RunView, *, as_json: bool) -> None:
    with Progress(errors=as_json) as progress:
        follower = Follower(system(), run.run_id, progress, _printed if as_json else lambda _: True)
        try:
            ended = follower.until(is_over)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
    if not as_json:
        say(f"Run {ended.run_id} is {ended.status}.", style=STYLES.get(ended.status, ""), errors=True)


def _printed(line: LogLine) -> bool:
    """Print a line as JSON; it is not for people then."""
    typer.echo(json.dumps(plain(line)))
    return False
