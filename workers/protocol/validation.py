"""The one renderer of validation errors: what is wrong where, with the value, and what is allowed. Pure."""

from collections.abc import Callable, Collection
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from workers.protocol.names import NAME
from workers.protocol.sources import without_credentials

Path = tuple[int | str, ...]

_NAME_RULE = "a name has lower-case letters, digits and '-', and begins and ends with a letter or digit"


def dotted(path: Path) -> str:
    """Return the path of a field as people write it: ``source.url``."""
    return ".".join(map(str, path))


def problems(
    error: ValidationError,
    *,
    values: bool = False,
    secret: Collection[str] = (),
    path: Callable[[Path], str] = dotted,
    at_most: int | None = None,
) -> list[str]:
    """Return what is wrong, one clause a field: ``priority='high': Input should be a valid integer``.

    A value is shown only with ``values``, and never that of a field of ``secret``, of an unknown field, or a dictionary
    or list: each may hold a secret. ``path`` names a field, ``at_most`` bounds the number of clauses.
    """
    found = error.errors(include_url=False)[:at_most]
    return [_clause(each, path(each["loc"]), _value(each, secret) if values else "") for each in found]


def _clause(problem: ErrorDetails, where: str, value: str) -> str:
    if problem["type"] == "missing":
        return f"{where} is not set"
    return f"{where}{value}: {_rule(problem)}" if where else _rule(problem)


def _value(problem: ErrorDetails, secret: Collection[str]) -> str:
    given: Any = problem["input"]
    hidden = problem["type"] == "extra_forbidden" or (problem["loc"] and problem["loc"][0] in secret)
    if hidden or not isinstance(given, str | int | float):
        return ""
    return f"={without_credentials(given)!r}" if isinstance(given, str) else f"={given!r}"


def _rule(problem: ErrorDetails) -> str:
    if NAME.pattern in problem.get("ctx", {}).get("pattern", ""):
        return _NAME_RULE
    return problem["msg"].removeprefix("Value error, ")
