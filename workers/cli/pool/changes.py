"""``pool create``, ``update``, ``apply``: the configuration of pools.

Limits and timeouts have an option each, made from their own fields.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import typer
from pydantic import BaseModel

from workers.cli.console import answer, say
from workers.cli.options import AsJson, PoolName, with_options
from workers.cli.sensitive import SENSITIVE, UNSET_SENSITIVE, change
from workers.cli.specifications import FileOption, apply_all, read
from workers.cli.system import system
from workers.core.pools import PoolLimits, PoolTimeouts
from workers.services import pool_state
from workers.services.applied import Applied
from workers.services.pools import manage as pools
from workers.specs.pools import PoolSpec

app = typer.Typer()

_COUNTS = {"min_agents": "--min", "max_agents": "--max", "step": "--step"}


def _options(section: str, model: type[BaseModel], flag: str) -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        words = _COUNTS.get(name, flag.format(name.replace("_", "-")))
        option = typer.Option(words, metavar="N" if name in _COUNTS else "SECONDS", help=field.description)
        yield f"{section}_{name}", Annotated[field.annotation | None, option]  # type: ignore[operator]


_SETTINGS: dict[str, Any] = {
    "image": Annotated[str | None, typer.Option(help="The agents' image, in a pool of type kubernetes.")],
    **dict(_options("limits", PoolLimits, "--{}")),
    **dict(_options("timeouts", PoolTimeouts, "--{}-timeout")),
}


@app.command()
@with_options(_SETTINGS | SENSITIVE)
def create(
    name: PoolName,
    *,
    pool_type: Annotated[Literal["local", "kubernetes"], typer.Option("--type", help="What its agents are.")] = "local",
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
def apply(file: FileOption, as_json: AsJson = False) -> None:
    """Create or change pools from a YAML or JSON file."""
    apply_all("pool", read(file, PoolSpec), _save, as_json)


def _save(spec: PoolSpec) -> tuple[Applied, str | None]:
    return pools.apply(system(), spec), pool_state.status(system(), spec.name)


def _merged(spec: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with what the options say."""
    for section in ("limits", "timeouts"):
        said = {name.removeprefix(f"{section}_"): given[name] for name in given if name.startswith(f"{section}_")}
        spec = spec | {section: spec.get(section, {}) | said}
    return spec | (
        {"kubernetes": (spec.get("kubernetes") or {}) | {"image": given["image"]}} if "image" in given else {}
    )


def _tell(name: str, verb: str, *, as_json: bool) -> None:
    problem = pool_state.status(system(), name)
    spec = system().pool(name).model_dump(mode="json")
    answer({**spec, "status_message": problem}, f"Pool {name} {verb}.", as_json=as_json)
    if problem and not as_json:
        say(f"  {problem}", style="yellow")
