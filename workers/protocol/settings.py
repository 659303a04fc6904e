"""What both halves read alike from their environments, and how an invalid variable is told."""

from collections.abc import Collection, Mapping
from typing import Annotated

from pydantic import AfterValidator, StringConstraints, ValidationError

from workers.protocol import redis_address, validation

PREFIX = "TERRASLOT_"
# What an agent keeps at most of what inits have made, and of git repositories, unless it is told otherwise.
INIT_CACHE_BYTES = 2 << 30
GIT_CACHE_BYTES = 1 << 30
# Passwords of Flower's users and a collector's keys are among them.
_OURS = (PREFIX, "FLOWER_", "OTEL_", "CELERY_", "KOMBU_", "C_FORCE_ROOT", "FORKED_BY_MULTIPROCESSING")


def _redis_address(url: str) -> str:
    if url:
        redis_address.parse(url)
    return url


RedisUrl = Annotated[str, AfterValidator(_redis_address)]
LogLevel = Annotated[str, StringConstraints(pattern="^(DEBUG|INFO|WARNING|ERROR)$")]
LogFormat = Annotated[str, StringConstraints(pattern="^(console|json)$")]


def without_ours(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the platform's own variables: for programs that what people write has a say in."""
    return {name: value for name, value in environment.items() if not name.startswith(_OURS)}


def problems(error: ValidationError, secret: Collection[str]) -> str:
    """Return what is wrong with the variables of settings in one line; the values of ``secret`` fields are left out."""
    return "; ".join(validation.problems(error, values=True, secret=secret, path=_variable))


def _variable(path: validation.Path) -> str:
    return f"{PREFIX}{'_'.join(map(str, path)).upper()}" if path else ""
