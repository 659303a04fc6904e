"""``pool create``, ``update``, ``apply``: what people say of pools."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from workers.cli.console import say, show_json
from workers.cli.options import AsJson, PoolName
from workers.cli.sensitive import SensitiveEnvOption, SensitiveVarOption, UnsetSensitiveOption, change
from workers.cli.specifications import FileOption, apply_all, read
from workers.cli.system import system
from workers.services import pool_status
from workers.services.applied import Applied
from workers.services.pools import manage as pools
from workers.specs.pools import PoolSpec

app = typer.Typer()

MinOption = Annotated[int | None, typer.Option("--min", metavar="N", help="Agents it always has.")]
MaxOption = Annotated[int | None, typer.Option("--max", metavar="N", help="Agents it has at most.")]
StepOption = Annotated[int | None, typer.Option(metavar="N", help="Agents that one decision adds at most.")]
IdleOption = Annotated[float | None, typer.Option(metavar="SECONDS", help="How long an idle agent stays.")]
PlanOption = Annotated[float | None, typer.Option(metavar="SECONDS", help="How long a plan may take.")]
ApplyOption = Annotated[float | None, typer.Option(metavar="SECONDS", help="How long an apply may take.")]
ConfirmOption = Annotated[int | None, typer.Option(metavar="SECONDS", help="How long a plan waits for a person.")]
ImageOption = Annotated[str | None, typer.Option(help="The agents' image, in a pool of type kubernetes.")]


@app.command()
def create(
    name: PoolName,
    *,
    pool_type: Annotated[Literal["local", "kubernetes"], typer.Option("--type", help="What its agents are.")] = "local",
    image: ImageOption = None,
    min_agents: MinOption = None,
    max_agents: MaxOption = None,
    step: StepOption = None,
    idle_timeout: IdleOption = None,
    plan_timeout: PlanOption = None,
    apply_timeout: ApplyOption = None,
    confirm_timeout: ConfirmOption = None,
    sensitive_var: SensitiveVarOption = None,
    sensitive_env: SensitiveEnvOption = None,
    as_json: AsJson = False,
) -> None:
    """Create a pool. `pool apply` knows everything else that a pool can be told."""
    spec = {
        "name": name,
        "type": pool_type,
        "limits": _limits(min_agents, max_agents, step, idle_timeout),
        "timeouts": _timeouts(plan_timeout, apply_timeout, confirm_timeout),
        **({} if image is None else {"kubernetes": {"image": image}}),
    }
    pools.create(system(), PoolSpec.model_validate(spec), change(sensitive_var, sensitive_env).given)
    _told(name, "created", as_json=as_json)


@app.command()
def update(
    name: PoolName,
    *,
    image: ImageOption = None,
    min_agents: MinOption = None,
    max_agents: MaxOption = None,
    step: StepOption = None,
    idle_timeout: IdleOption = None,
    plan_timeout: PlanOption = None,
    apply_timeout: ApplyOption = None,
    confirm_timeout: ConfirmOption = None,
    sensitive_var: SensitiveVarOption = None,
    sensitive_env: SensitiveEnvOption = None,
    unset_sensitive: UnsetSensitiveOption = None,
    as_json: AsJson = False,
) -> None:
    """Change what is given; the rest stays. Agents that are there stay as they are."""
    spec = pools.get(system(), name).model_dump()
    spec["limits"] |= _limits(min_agents, max_agents, step, idle_timeout)
    spec["timeouts"] |= _timeouts(plan_timeout, apply_timeout, confirm_timeout)
    if image is not None:
        spec["kubernetes"] = (spec["kubernetes"] or {}) | {"image": image}
    wanted = change(sensitive_var, sensitive_env, unset_sensitive)
    pools.update(system(), PoolSpec.model_validate(spec), wanted)
    _told(name, "updated", as_json=as_json)


@app.command()
def apply(file: FileOption, as_json: AsJson = False) -> None:
    """Create or change pools from a YAML or JSON file."""
    apply_all("pool", read(file, PoolSpec), _apply, as_json)


def _apply(spec: PoolSpec) -> tuple[Applied, str | None]:
    return pools.apply(system(), spec), pool_status.status(system(), spec.name)


def _told(name: str, verb: str, *, as_json: bool) -> None:
    problem = pool_status.status(system(), name)
    if as_json:
        show_json({**pools.get(system(), name).model_dump(mode="json"), "status_message": problem})
        return
    say(f"Pool {name} {verb}.")
    if problem:
        say(f"  {problem}", style="yellow")


def _limits(min_agents: int | None, max_agents: int | None, step: int | None, idle: float | None) -> dict[str, Any]:
    return _given({"min_agents": min_agents, "max_agents": max_agents, "step": step, "idle_timeout": idle})


def _timeouts(plan: float | None, apply: float | None, confirm: int | None) -> dict[str, Any]:
    return _given({"plan": plan, "apply": apply, "confirm": confirm})


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
