"""``up``, ``down``: the embedded system, with everything that Terraslot needs on one machine."""

from typing import Annotated

import typer

from workers.cli.console import is_interactive, say
from workers.cli.history import database
from workers.cli.outcome import changes
from workers.cluster.local import LocalPods
from workers.core.lifecycle import RunStatus
from workers.embedded import background, supervisor
from workers.embedded.state import Options, Running
from workers.protocol.errors import InvalidRequest, TerraslotError
from workers.services.formatting import counted
from workers.services.runs import views
from workers.services.runs.views import RunFilter, RunView
from workers.settings import home

app = typer.Typer()

_MOST = 10_000  # runs: each keeps a slot of this machine


@app.command()
def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when it is ready; it goes on.")] = False,
    flower_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Flower's port; 5555 or a free one, unless given.")
    ] = None,
    flower: Annotated[bool, typer.Option("--flower/--no-flower", help="Whether to start Flower.")] = True,
) -> None:
    """Start Valkey, workers, beat, Flower and a local pool under TERRASLOT_HOME.

    No Valkey is started where TERRASLOT_REDIS_URL names a server. Local agents run as you,
    and can read what you can; as root, set TERRASLOT_LOCAL_USER to run them as another user.
    """
    options = Options(flower=flower, flower_port=flower_port)
    if detach:
        _ready(background.detach(options, say), "Stop it with `terraslot down`.")
    else:
        supervisor.up(options, say, lambda running: _ready(running, "Stop it with Ctrl-C."))


@app.command()
def down(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Give waiting plans up without asking.")] = False,
) -> None:
    """Stop what `terraslot up` started. Agents finish, or are interrupted and store Terraform's state.

    Plans that wait for a confirmation end with their agents: it asks before it gives any up.
    """
    if lost := _waiting_plans():
        for run in lost:
            who = f", asked for by {run.actor}" if run.actor else ""
            say(
                f"Run {run.run_id} of workspace {run.workspace} waits for a confirmation: {changes(run)}{who}.",
                "yellow",
            )
        plans = counted(len(lost), "waiting plan ends", "waiting plans end")
        said = f"{plans} with the agents of this machine; the next `terraslot up` plans those runs anew"
        if not yes and not is_interactive():
            raise InvalidRequest(f"{said}. Confirm or discard them, or say --yes: there is nobody to ask.")
        if not yes:
            typer.confirm(f"{said}. Stop?", abort=True)
    say("Stopped." if background.down(home(), say) else f"Nothing runs under {home()}.")


def _waiting_plans() -> list[RunView]:
    """Return the runs whose plan is kept by an agent of this machine until a person decides."""
    try:
        pods = LocalPods(home(), {})
        agents = {pod.name for pool in pods.pools() for pod in pods.list(pool)}
        wanted = RunFilter(statuses=frozenset({RunStatus.APPLY_PENDING}))
        waiting = views.recent(database(), wanted, limit=_MOST) if agents else []
    except TerraslotError as error:  # what can't be listed can be stopped all the same
        say(f"Plans that wait for a confirmation can't be listed: {error}", style="yellow", errors=True)
        return []
    return [run for run in waiting if run.agent in agents]


def _ready(running: Running, how_to_stop: str) -> None:
    say(f"Terraslot runs under {home()}.", style="green")
    if running.flower_url:
        say(f"Flower and the slots: {running.flower_url}/slots")
    say("Next: `terraslot workspace create NAME --path DIR`, then `terraslot apply NAME`.")
    say(how_to_stop)
