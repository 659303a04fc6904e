"""What both halves read alike from their environments, and how they say what makes no sense there."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

from pydantic import AfterValidator, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

PREFIX = "TERRASLOT_"


def _redis_scheme(url: str) -> str:
    if url and not url.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("must start with redis://, rediss:// or unix://")
    return url


RedisUrl = Annotated[str, AfterValidator(_redis_scheme)]
LogLevel = Annotated[str, StringConstraints(pattern="^(DEBUG|INFO|WARNING|ERROR)$")]
LogFormat = Annotated[str, StringConstraints(pattern="^(console|json)$")]


def problems(error: ValidationError, secret: Collection[str]) -> str:
    """Return what is wrong with the variables of settings in one line; the values of ``secret`` fields are left out."""
    return "; ".join(_sentence(problem, secret) for problem in error.errors())


def _sentence(problem: ErrorDetails, secret: Collection[str]) -> str:
    name = "_".join(str(part) for part in problem["loc"])
    variable = f"{PREFIX}{name.upper()}"
    if problem["type"] == "missing":
        return f"{variable} is not set"
    value = "" if name in secret else f"={problem['input']!r}"
    return f"{variable}{value}: {problem['msg'].removeprefix('Value error, ')}"
