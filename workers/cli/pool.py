"""``pool``: the pools, their limits, why they have as many agents as they have, and what is done with them.

Limits and timeouts have an option each, made from their own fields.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import typer
from pydantic import BaseModel

from workers.cli import pool_operations
from workers.cli.console import answer, console, say, show_json, show_table
from workers.cli.options import TERRAFORM, AsJson, PoolName, with_options
from workers.cli.sensitive import SENSITIVE, UNSET_SENSITIVE, change
from workers.cli.slots import slots_tables
from workers.cli.specifications import CheckOption, FileOption, apply_all, read
from workers.cli.system import system
from workers.core.pools import PoolLimits, PoolTimeouts
from workers.services import pool_state
from workers.services.pools import manage as pools
from workers.services.pools import views as pool_views
from workers.services.pools.views import PoolView
from workers.specs import Applied
from workers.specs.pools import PoolSpec

app = typer.Typer(help="Manage pools.", no_args_is_help=True)
app.add_typer(pool_operations.app)  # they stand below this module's own

_TYPE = "What its agents are. Local ones run as this system's user: there, a pool is no boundary between workspaces."
_COUNTS = {"min_agents": "--min", "max_agents": "--max", "step": "--step"}


def _options(section: str, model: type[BaseModel], flag: str) -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        words = _COUNTS.get(name, flag.format(name.replace("_", "-")))
        option = typer.Option(words, metavar="N" if name in _COUNTS else "SECONDS", help=field.description)
        yield f"{section}_{name}", Annotated[field.annotation | None, option]  # type: ignore[operator]


_SETTINGS: dict[str, Any] = {
    "image": Annotated[str | None, typer.Option(help="The agents' image, in a pool of type kubernetes.")],
    "terraform": TERRAFORM,
    **dict(_options("limits", PoolLimits, "--{}")),
    **dict(_options("timeouts", PoolTimeouts, "--{}-timeout")),
}


@app.command("list")
def list_pools(as_json: AsJson = False) -> None:
    """List all pools with their agents and slots."""
    pools = pool_views.every(system())
    if as_json:
        show_json([_brief(pool) for pool in pools])
        return
    columns = ("POOL", "TYPE", "AGENTS", "MIN", "MAX", "RUNNING", "RESERVED", "IDLE", "WAITING", "STATUS")
    show_table(columns, (_row(pool) for pool in pools))


@app.command()
def show(name: PoolName, as_json: AsJson = False) -> None:
    """Show a pool: limits, slots, last decisions."""
    pool = pool_views.one(system(), name)
    if as_json:
        show_json(pool)
        return
    console().print(slots_tables([pool]))
    say("\nLimits and timeouts", style="bold")
    for what, value in {**pool.limits, **pool.timeouts, "attempts": pool.attempts}.items():
        say(f"  {what} = {value:g}")
    say(f"  terraform = {pool.terraform or 'any'}")
    say(f"  programs of its agents = {', '.join(pool.programs) or 'none has registered yet'}")
    if pool.adopting:
        again = f"terraslot pool adopt-deployment {name} {pool.deployment}"
        say(f"\nThe pool adopts the Deployment {pool.deployment}. If that stopped half-way, continue with `{again}`.")
    elif pool.deployment:
        say(f"\nThe Deployment {pool.deployment} runs its pods.")
    for variable in pool.sensitive:
        say(f"  sensitive {variable}")
    say("\nLast decisions about its size", style="bold")
    show_table(
        ("AT", "AGENTS", "REASON"),
        (
            (each.at.astimezone().strftime("%Y-%m-%d %H:%M:%S"), f"{each.current} -> {each.desired}", each.reason)
            for each in pool.decisions
        ),
    )


@app.command()
@with_options(_SETTINGS | SENSITIVE)
def create(
    name: PoolName,
    *,
    pool_type: Annotated[Literal["local", "kubernetes"], typer.Option("--type", help=_TYPE)] = "local",
    as_json: AsJson = False,
    given: dict[str, Any],
) -> None:
    """Create a pool. `pool apply` takes every field of its configuration."""
    spec = _merged({"name": name, "type": pool_type}, given)
    pools.create(system(), PoolSpec.model_validate(spec), change(given).given)
    _tell(name, "created", as_json=as_json)


@app.command()
@with_options(_SETTINGS | SENSITIVE | UNSET_SENSITIVE)
def update(name: PoolName, *, as_json: AsJson = False, given: dict[str, Any]) -> None:
    """Change what is given; the rest stays. Existing agents stay as they are."""
    spec = _merged(system().pool(name).model_dump(), given)
    pools.update(system(), PoolSpec.model_validate(spec), change(given))
    _tell(name, "updated", as_json=as_json)


@app.command()
def apply(file: FileOption, check: CheckOption = False, as_json: AsJson = False) -> None:
    """Create or change pools from a YAML or JSON file."""
    apply_all("pool", read(file, PoolSpec), _check if check else _save, as_json)


def _row(pool: PoolView) -> tuple[object, ...]:
    counts, limits, waiting = pool.slots, pool.limits, sum(pool.pending.values())
    sizes = len(pool.agents), limits["min_agents"], limits["max_agents"]
    return pool.name, pool.type, *sizes, counts.running, counts.reserved, counts.idle, waiting, pool.status_message


def _brief(pool: PoolView) -> dict[str, object]:
    return {
        "name": pool.name,
        "type": pool.type,
        "limits": pool.limits,
        "agents": len(pool.agents),
        "slots": pool.slots,
        "pending": pool.pending,
        "status_message": pool.status_message,
    }


def _check(_: PoolSpec) -> tuple[str, None]:
    return "valid", None  # to read it is the check


def _save(spec: PoolSpec) -> tuple[Applied, str | None]:
    return pools.apply(system(), spec), pool_state.status(system(), spec.name)


def _merged(spec: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with what the options say."""
    for section in ("limits", "timeouts"):
        said = {name.removeprefix(f"{section}_"): given[name] for name in given if name.startswith(f"{section}_")}
        spec = spec | {section: spec.get(section, {}) | said}
    if "terraform" in given:
        spec = spec | {"terraform": given["terraform"] or None}
    return spec | (
        {"kubernetes": (spec.get("kubernetes") or {}) | {"image": given["image"]}} if "image" in given else {}
    )


def _tell(name: str, verb: str, *, as_json: bool) -> None:
    problem = pool_state.status(system(), name)
    spec = system().pool(name).model_dump(mode="json")
    answer({**spec, "status_message": problem}, f"Pool {name} {verb}.", as_json=as_json)
    if problem and not as_json:
        say(f"  {problem}", style="yellow")
