"""What both halves read alike from their environments, and how an invalid variable is told."""

from collections.abc import Collection
from typing import Annotated

from pydantic import AfterValidator, StringConstraints, ValidationError

from workers.protocol import redis_address, validation

PREFIX = "TERRASLOT_"
# What an agent keeps at most of what inits have made, and of git repositories, unless it is told otherwise.
INIT_CACHE_BYTES = 2 << 30
GIT_CACHE_BYTES = 1 << 30


def _redis_address(url: str) -> str:
    if url:
        redis_address.parse(url)
    return url


RedisUrl = Annotated[str, AfterValidator(_redis_address)]
LogLevel = Annotated[str, StringConstraints(pattern="^(DEBUG|INFO|WARNING|ERROR)$")]
LogFormat = Annotated[str, StringConstraints(pattern="^(console|json)$")]


def problems(error: ValidationError, secret: Collection[str]) -> str:
    """Return what is wrong with the variables of settings in one line; the values of ``secret`` fields are left out."""
    return "; ".join(validation.problems(error, values=True, secret=secret, path=_variable))


def _variable(path: validation.Path) -> str:
    return f"{PREFIX}{'_'.join(map(str, path)).upper()}" if path else ""
