"""The one renderer of validation errors: what is wrong where, with the value, and what is allowed. Pure."""

from collections.abc import Callable, Collection
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from workers.protocol.names import NAME
from workers.protocol.sources import without_credentials

Path = tuple[int | str, ...]

OWN_RULE = "rule"  # the type of an error whose message is a clause of this program's own

_NAME_RULE = "a name has lower-case letters, digits and '-', and begins and ends with a letter or digit"

# By the library's name of a problem: its own words for it are no user's.
_RULES = {
    "extra_forbidden": "there is no such field",
    "union_tag_not_found": "its {discriminator} is not set",
    "union_tag_invalid": "its {discriminator} is '{tag}', and must be one of {expected_tags}",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    **dict.fromkeys(("enum", "literal_error"), "must be {expected}"),
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("string_type", "string_unicode"), "must be text"),
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type"), "must be a list"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "must be a mapping of names to values"),
    "path_type": "must be a path",
    **dict.fromkeys(("json_invalid", "json_type"), "must be JSON"),
}


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
    """Return what is wrong, one clause a field: ``priority='high': must be a whole number``.

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
    if problem["type"] in ("value_error", OWN_RULE):
        return problem["msg"].removeprefix("Value error, ")
    about = {name: str(value).removesuffix(".0") for name, value in problem.get("ctx", {}).items()}
    if NAME.pattern in about.get("pattern", ""):
        return _NAME_RULE
    return _RULES.get(problem["type"], "is invalid").format(**about)
