"""Options that several commands have."""

import json
import re
from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from typing import Annotated, Any

import typer

from workers.cli import completion

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document, and nothing else, on stdout.")]
Watch = Annotated[bool, typer.Option("--watch", help="Look again every second, until q or Ctrl-C.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Return at once; the run goes on.")]
RunId = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, or the beginning of it.", autocompletion=completion.runs)
]
PoolName = Annotated[str, typer.Argument(metavar="POOL", help="A pool's name.", autocompletion=completion.pools)]
WorkspaceName = Annotated[
    str, typer.Argument(metavar="WORKSPACE", help="A workspace's name.", autocompletion=completion.workspaces)
]
OfPool = Annotated[str | None, typer.Option("--pool", help="Only this pool.", autocompletion=completion.pools)]
OfWorkspace = Annotated[
    str | None,
    typer.Option("--workspace", "-w", help="Only runs of this workspace.", autocompletion=completion.workspaces),
]
Priority = Annotated[int, typer.Option(min=-1000, max=1000, help="Runs with a higher priority start first.")]
Destroy = Annotated[bool, typer.Option("--destroy", help="Plan the removal of everything.")]

Message = Annotated[str | None, typer.Option("--message", "-m", help="Why: shown with the run.")]


def seconds(text: str) -> int:
    """Return a time span such as 90s, 30m, 4h or 1d12h in seconds."""
    found = re.fullmatch(r"(?=\d)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no time: write 90s, 30m, 4h or 2d.")
    return sum(int(part or 0) * unit for part, unit in zip(found.groups(), (86400, 3600, 60, 1), strict=True))


Longer = Annotated[int, typer.Option("--for", metavar="TIME", parser=seconds, help="How much longer: 30m, 4h, 2d.")]

_VARIABLE = 'Terraform variable NAME=VALUE; a VALUE that begins with [, { or " is JSON. May be repeated.'
VARIABLES = Annotated[list[str] | None, typer.Option("--var", metavar="NAME=VALUE", help=_VARIABLE)]
TERRAFORM = Annotated[
    str | None,
    typer.Option(
        metavar="REQUIRED",
        help="Program and version that runs need, as 'terraform ~> 1.9' or 'tofu 1.10.x'; '' for any.",
    ),
]
RUN_OPTIONS: dict[str, Any] = {
    "target": Annotated[
        list[str] | None, typer.Option(metavar="ADDRESS", help="Plan this resource or module alone. May be repeated.")
    ],
    "replace": Annotated[
        list[str] | None, typer.Option(metavar="ADDRESS", help="Plan to replace this resource. May be repeated.")
    ],
    "refresh_only": Annotated[
        bool | None, typer.Option("--refresh-only", help="Bring the state to what is there; change nothing.")
    ],
    "var": VARIABLES,
    "parallelism": Annotated[
        int | None, typer.Option(min=1, max=1000, help="How many resources Terraform changes at a time.")
    ],
    "message": Annotated[str | None, typer.Option("--message", "-m", help="Why this run is wanted.")],
}


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


def variables(given: dict[str, Any]) -> dict[str, Any]:
    """Return the Terraform variables that --var gives."""
    return {name: value_of("--var", name, value) for name, value in assignments("var", given).items()}


def assignments(option: str, given: dict[str, Any]) -> dict[str, str]:
    """Return what an option with NAME=VALUE gives."""
    pairs = [assignment.partition("=") for assignment in given.get(option, ())]
    for name, equals, _ in pairs:
        if not equals or not name:
            raise typer.BadParameter(f"--{option} {name}: write NAME=VALUE.")
    return {name: value for name, _, value in pairs}


def value_of(option: str, name: str, value: str) -> Any:
    """Return the value of a Terraform variable: JSON where it begins as JSON does, else text."""
    if not value.startswith(("[", "{", '"')):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise typer.BadParameter(
            f"{option} {name}: a value that begins with {value[0]} is JSON, but {error}."
        ) from None
