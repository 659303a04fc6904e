"""What an exception says about the work that met it: everybody would meet it now, or this one thing always would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from workers.protocol.encryption import NoKey
from workers.protocol.errors import TerraslotError, Unavailable
from workers.protocol.names import NAME
from workers.protocol.sources import without_credentials

log = structlog.get_logger(__name__)

_NAMED_AT_MOST = 3


def is_outage(error: BaseException) -> bool:
    """Whether the platform lacks what the work needs: a server, a way to it, a key. Then the work waits."""
    if isinstance(error, OSError):
        return error.filename is None  # one that names a file is about that file
    from kombu.exceptions import OperationalError  # noqa: PLC0415 - whoever meets such an error has loaded these

    from workers.slots.server import is_away  # noqa: PLC0415

    return isinstance(error, Unavailable | NoKey | OperationalError) or is_away(error)


@contextmanager
def isolate(event: str, **about: Any) -> Iterator[None]:
    """Keep what is wrong with one thing from the others: it is logged, and they go on. Raises what all would meet."""
    try:
        yield
    except Exception as error:
        if is_outage(error):
            raise
        log.exception(event, **about)


def explained(error: BaseException) -> str:
    """Return an error in words for a run's record: without values, which may be nobody's to see."""
    if isinstance(error, TerraslotError):
        return str(error)
    if isinstance(error, ValidationError):
        problems = error.errors(include_input=False, include_url=False, include_context=False)[:_NAMED_AT_MOST]
        return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in problems) + "."
    return f"an unexpected {type(error).__name__}; the log of the control plane has more of it."


def user_message(error: BaseException) -> str | None:
    """Return what a person is told about ``error``; None for one that is this program's own fault."""
    if isinstance(error, TerraslotError):
        return str(error)
    if isinstance(error, ValidationError):
        return _invalid(error)
    if isinstance(error, OSError):
        return f"{error.filename or 'This machine'}: {error.strerror or error}."
    return _unreachable(error)


def problems(error: ValidationError) -> list[str]:
    """Return what is wrong with a configuration, each with its path."""
    return [_problem(problem) for problem in error.errors()]


def _invalid(error: ValidationError) -> str:
    return f"That makes no sense: {'; '.join(problems(error))}."


def _problem(problem: ErrorDetails) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    what = problem["msg"].removeprefix("Value error, ")
    if NAME.pattern in problem.get("ctx", {}).get("pattern", ""):
        what = "a name has lower-case letters, digits and '-', and begins and ends with a letter or digit"
    # A dictionary may hold what nobody should see again.
    entered = problem["input"]
    if isinstance(entered, str):
        entered = without_credentials(entered)
    given = f" {entered!r}" if isinstance(entered, str | int | float) else ""
    return f"{where}{given}: {what}" if where else what


def _unreachable(error: BaseException) -> str | None:
    # Only who has met such an error has these libraries loaded already.
    from kombu.exceptions import OperationalError  # noqa: PLC0415

    from workers.settings import settings  # noqa: PLC0415
    from workers.slots.server import unavailable, without_password  # noqa: PLC0415

    if isinstance(error, OperationalError):
        return (
            f"The broker at {without_password(settings().broker)} can't be reached: {str(error).rstrip('.')}. "
            "Start the system with `terraslot up`, or check TERRASLOT_BROKER_URL."
        )
    # Celery wraps what its result backend met.
    problem = unavailable(error, settings().redis_url) or unavailable(error.__cause__, settings().redis_url)
    return None if problem is None else str(problem)
