"""``state``: states that runs could not save."""

import sys

import typer

from workers.cli.console import answer
from workers.cli.options import AsJson, Message, NoWait, RunId
from workers.cli.runs import change_state
from workers.cli.system import actor, system
from workers.protocol import names
from workers.protocol.errors import InvalidRequest
from workers.services.runs import requests, states
from workers.services.runs import rescued as rescued_states

app = typer.Typer(help="Decide about states that could not be saved.", no_args_is_help=True)


@app.command()
def rescued(run: RunId) -> None:
    """Print the state that a run could not save, as Terraform wrote it. It holds secrets: redirect it into a file."""
    content = rescued_states.content(system(), run)
    if sys.stdout.isatty():
        raise InvalidRequest(f"A state holds secrets: write it into a file, `terraslot state rescued {run} > FILE`.")
    sys.stdout.buffer.write(content)


@app.command()
def push(run: RunId, message: Message = None, no_wait: NoWait = False, as_json: AsJson = False) -> None:
    """Let an agent push the state that a run could not save; Terraform refuses it where a newer one is there."""
    states.push(system(), run)
    change_state(names.STATE_PUSH, run, message, no_wait=no_wait, as_json=as_json)


@app.command("give-up")
def give_up(run: RunId, message: Message = None, as_json: AsJson = False) -> None:
    """Let the workspace's runs go on without the state that a run could not save, or after you pushed it yourself."""
    given_up = requests.decide(system(), names.STATE_GIVE_UP, run, actor(), message=message)
    said = f"The rescued state of run {given_up.run_id} is given up: runs of {given_up.workspace} go on without it."
    answer(
        {"run_id": given_up.run_id, "workspace": given_up.workspace, "settled_as": "given up"}, said, as_json=as_json
    )
