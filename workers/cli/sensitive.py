"""Sensitive values: never on the command line, which every process of the machine can read."""

import getpass
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from workers.cli.console import is_interactive
from workers.protocol.errors import InvalidRequest
from workers.protocol.sources import SensitiveVariables
from workers.services.secrets.variables import Change

_VAR = "Sensitive Terraform variable; its value is FILE's, or that of TF_VAR_NAME, or asked for. May be repeated."
_ENV = "Sensitive environment variable; its value is FILE's, or that of NAME here, or asked for. May be repeated."
_SHAPE = "NAME[=@FILE]"

SensitiveVarOption = Annotated[list[str] | None, typer.Option("--sensitive-var", metavar=_SHAPE, help=_VAR)]
SensitiveEnvOption = Annotated[list[str] | None, typer.Option("--sensitive-env", metavar=_SHAPE, help=_ENV)]
UnsetSensitiveOption = Annotated[
    list[str] | None, typer.Option("--unset-sensitive", metavar="NAME", help="Remove a sensitive variable.")
]


def change(
    variables: Sequence[str] | None, environment: Sequence[str] | None, unset: Sequence[str] | None = None
) -> Change:
    """Return what the options say, with values from where they are."""
    option = "--sensitive-var"
    given = SensitiveVariables(
        variables={
            name: value_of(option, name, secret) for name, secret in _secrets(option, variables, "TF_VAR_").items()
        },
        environment=_secrets("--sensitive-env", environment, ""),
    )
    return Change(given, tuple(unset or ()))


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


def _secrets(option: str, given: Sequence[str] | None, prefix: str) -> dict[str, str]:
    return dict(_secret(option, each, prefix) for each in given or ())


def _secret(option: str, given: str, prefix: str) -> tuple[str, str]:
    name, equals, source = given.partition("=")
    if equals and not source.startswith("@"):
        raise typer.BadParameter(
            f"{option} {name}: a sensitive value is not written on the command line: {option} {name}=@FILE, or "
            f"{option} {name} with the value in {prefix}{name}."
        )
    if equals:
        return name, _content(Path(source[1:]))
    if (value := os.environ.get(f"{prefix}{name}")) is not None:
        return name, value
    if is_interactive():
        return name, getpass.getpass(f"{name}: ")
    raise InvalidRequest(
        f"The sensitive variable {name} has no value: set {prefix}{name}, or name a file with {option} {name}=@FILE."
    )


def _content(path: Path) -> str:
    """Return a file's text without the line end that editors leave."""
    try:
        return path.read_text("utf-8").removesuffix("\n")
    except UnicodeDecodeError:
        raise InvalidRequest(f"{path} holds no text in UTF-8.") from None
