"""Operations on a pool: scale, drain, rotate, adopt a Deployment, delete."""

from typing import Annotated

import typer

from workers.cli.console import answer, is_interactive, say
from workers.cli.options import AsJson, PoolName
from workers.cli.system import system
from workers.protocol.errors import InvalidRequest
from workers.services.formatting import counted
from workers.services.pools import adopt, shut_down
from workers.services.pools import delete as removal
from workers.services.pools import drain as draining
from workers.services.scaling.scale import Scaled, scale_now
from workers.services.secrets import credentials

app = typer.Typer()

DeploymentName = Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="A Deployment's name.")]


@app.command()
def scale(name: PoolName, count: Annotated[int, typer.Argument(metavar="N", min=0)], as_json: AsJson = False) -> None:
    """Bring a pool to N agents now. Agents with work stay, and the pool's limits and needs go on to count."""
    done = scale_now(system(), name, count)
    answer(done, _scaled(done), as_json=as_json)


@app.command()
def drain(
    name: PoolName,
    wait: Annotated[bool, typer.Option("--wait", help="Return when no slot is held any more.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give a pool no run any more. Its agents finish, and keep, what they hold."""
    held = draining.drain_pool(system(), name)
    if wait and held:
        say(_drains(name, held), errors=as_json)
        draining.wait_until_drained(system(), name)
        held = 0
    answer({"pool": name, "draining": True, "held": held}, _drains(name, held), as_json=as_json)


@app.command("drain-all")
def drain_all(
    timeout: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="How long to wait for runs.")] = 240,
    as_json: AsJson = False,
) -> None:
    """Drain all pools and end their agents. Refused while they hold runs. For an uninstallation."""
    left = shut_down.drain_all(system(), timeout)
    ending = counted(left, "pod is still ending, or a Deployment's", "pods are still ending, or a Deployment's")
    answer({"draining": True, "ending": left}, f"All pools drain; {ending}.", as_json=as_json)


@app.command()
def undrain(name: PoolName, as_json: AsJson = False) -> None:
    """Give a pool runs again."""
    draining.undrain_pool(system(), name)
    answer({"pool": name, "draining": False}, f"Pool {name} is given runs again.", as_json=as_json)


@app.command()
def rotate(name: PoolName, as_json: AsJson = False) -> None:
    """Give the pool's agents a new credential. The old one works until nothing uses it."""
    steps = credentials.rotate(system(), name)
    goes_on = "Each cycle continues it: agents connect with the new credential, then the old one is retired."
    answer({"pool": name, "steps": steps}, "\n".join([*steps, goes_on]), as_json=as_json)


@app.command("adopt-deployment")
def adopt_deployment(name: PoolName, deployment: DeploymentName, as_json: AsJson = False) -> None:
    """Make a Deployment's pods single pods of a pool. They go on with what they are doing. Safe to repeat."""
    adopt.adopt_deployment(system(), name, deployment)
    said = f"The pods of the Deployment {deployment} are single pods of pool {name}; the Deployment is deleted."
    answer({"pool": name, "deployment": None, "adopted": deployment}, said, as_json=as_json)


@app.command("return-to-deployment")
def return_to_deployment(name: PoolName, deployment: DeploymentName, as_json: AsJson = False) -> None:
    """Give a pool back to its former Deployment. Safe to repeat."""
    left = adopt.return_to_deployment(system(), name, deployment)
    drain = "single pod drains, and is deleted when idle", "single pods drain, and are deleted when idle"
    said = f"The Deployment {deployment} runs pool {name}{f'; {counted(left, *drain)}' if left else ''}."
    answer({"pool": name, "deployment": deployment, "single_pods": left}, said, as_json=as_json)


@app.command()
def delete(
    name: PoolName,
    *,
    drain: Annotated[bool, typer.Option("--drain", help="Wait until its runs are over.")] = False,
    timeout: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="How long --drain waits; for ever, unless given.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete a pool that nothing uses, with its agents. Its runs stay on record."""
    if timeout is not None and not drain:
        raise typer.BadParameter("--timeout belongs to --drain.")
    system().pool(name)
    if not yes:
        if not is_interactive():
            raise InvalidRequest(f"Say --yes to delete the pool {name!r}: there is nobody to ask.")
        typer.confirm(f"Delete the pool {name} and its agents?", abort=True, err=True)
    left = removal.delete_pool(system(), name, drain=drain, timeout=timeout)
    ending = counted(left, "of its pods is still ending", "of its pods are still ending")
    more = f"\n  {ending}, or will end when the cluster answers." if left else ""
    answer({"pool": name, "deleted": True, "ending": left}, f"Pool {name} deleted.{more}", as_json=as_json)


def _drains(pool: str, held: int) -> str:
    return f"Pool {pool} drains; {counted(held, 'slot is held', 'slots are held')}."


def _scaled(done: Scaled) -> str:
    if done.added:
        what = counted(done.added, "agent is starting", "agents are starting")
    elif done.removed:
        what = counted(done.removed, "idle agent goes", "idle agents go")
    else:
        what = "nothing changes"
    why = "more stays, since it holds work or is starting", "more stay, since they hold work or are starting"
    kept = f"; {counted(done.kept, *why)}" if done.kept else ""
    short = f"; {done.short} fewer than asked for: `terraslot pool show {done.pool}` says why" if done.short else ""
    return f"Pool {done.pool}: {what}{kept}{short}."
