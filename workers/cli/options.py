"""Options that several commands have."""

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document, and nothing else, on stdout.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Return at once; the run goes on.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or the beginning of it.")]
PoolName = Annotated[str, typer.Argument(metavar="POOL", help="A pool's name.")]
WorkspaceName = Annotated[str, typer.Argument(metavar="WORKSPACE", help="A workspace's name.")]
Priority = Annotated[int, typer.Option(min=-1000, max=1000, help="Runs with a higher priority start first.")]
Destroy = Annotated[bool, typer.Option("--destroy", help="Plan the removal of everything.")]


def with_options(options: dict[str, Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command these options, before --json; those that were given it gets, by name, as its ``given``."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def with_given(**arguments: Any) -> None:
            chosen = {name: value for name in options if (value := arguments.pop(name)) is not None}
            command(**arguments, given=chosen)

        own = [each for each in signature(command, eval_str=True).parameters.values() if each.name != "given"]
        added = [
            Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=kind) for name, kind in options.items()
        ]
        with_given.__signature__ = signature(command).replace(parameters=[*own[:-1], *added, own[-1]])  # type: ignore[attr-defined]
        with_given.__annotations__ = {each.name: each.annotation for each in (*own, *added)}
        return with_given

    return decorate
