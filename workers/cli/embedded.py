"""``up``, ``down``: the embedded system, with everything that Terraslot needs on one machine."""

from typing import Annotated

import typer

from workers.cli.console import say
from workers.embedded import background, supervisor
from workers.embedded.state import Options, Running
from workers.settings import home

app = typer.Typer()


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
def down() -> None:
    """Stop what `terraslot up` started. Agents finish, or are interrupted and store Terraform's state."""
    say("Stopped." if background.down(home(), say) else f"Nothing runs under {home()}.")


def _ready(running: Running, how_to_stop: str) -> None:
    say(f"Terraslot runs under {home()}.", style="green")
    if running.flower_url:
        say(f"Flower and the slots: {running.flower_url}/slots")
    say("Next: `terraslot workspace create NAME --path DIR`, then `terraslot apply NAME`.")
    say(how_to_stop)
