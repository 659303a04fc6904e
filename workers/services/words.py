"""Words for people: an error as one sentence, a time span in two units, a number with its noun."""

from __future__ import annotations

from datetime import datetime

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from workers.core.errors import TerraslotError
from workers.core.names import NAME
from workers.core.workspaces import without_credentials


def sentence(error: BaseException) -> str | None:
    """Return what a person is told about ``error``; None for one that is this program's own fault."""
    if isinstance(error, TerraslotError):
        return str(error)
    if isinstance(error, ValidationError):
        return _invalid(error)
    if isinstance(error, OSError):
        return f"{error.filename or 'This machine'}: {error.strerror or error}."
    return _unreachable(error)


def ago(moment: datetime | None, now: datetime) -> str:
    """Return how long ago something was, in two units at most."""
    return "" if moment is None else duration((now - moment).total_seconds())


def duration(seconds: float) -> str:
    """Return a time span in words: ``42s``, ``3m 20s``, ``2h 5m``, ``4d 1h``."""
    left = max(0, round(seconds))
    units: list[str] = []
    for name, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        amount, left = divmod(left, length)
        if amount or (name == "s" and not units):
            units.append(f"{amount}{name}")
    return " ".join(units[:2])


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return how many there are: ``no agents``, ``1 agent``, ``2 agents``. ``many`` where more than an s tells them."""
    return f"{number or 'no'} {one if number == 1 else many or f'{one}s'}"


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
