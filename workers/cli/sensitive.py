"""Sensitive values: never on the command line, which every process of the machine can read."""

import getpass
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from workers.cli.console import is_interactive
from workers.cli.options import value_of
from workers.protocol.errors import InvalidRequest
from workers.protocol.sources import SensitiveVariables
from workers.services.secrets.variables import Change

_VAR = "Sensitive Terraform variable; its value is FILE's, or that of TF_VAR_NAME, or asked for. May be repeated."
_ENV = "Sensitive environment variable; its value is FILE's, or that of NAME here, or asked for. May be repeated."
_SHAPE = "NAME[=@FILE]"

SENSITIVE: dict[str, Any] = {
    "sensitive_var": Annotated[list[str] | None, typer.Option(metavar=_SHAPE, help=_VAR)],
    "sensitive_env": Annotated[list[str] | None, typer.Option(metavar=_SHAPE, help=_ENV)],
}
UNSET_SENSITIVE: dict[str, Any] = {
    "unset_sensitive": Annotated[list[str] | None, typer.Option(metavar="NAME", help="Remove a sensitive variable.")],
}


def change(given: dict[str, Any]) -> Change:
    """Return what the options say, with values from where they are."""
    secrets = [_secret("--sensitive-var", each, "TF_VAR_") for each in given.get("sensitive_var", ())]
    values = {name: value_of("--sensitive-var", name, secret) for name, secret in secrets}
    others = dict(_secret("--sensitive-env", each, "") for each in given.get("sensitive_env", ()))
    return Change(SensitiveVariables(variables=values, environment=others), tuple(given.get("unset_sensitive", ())))


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
