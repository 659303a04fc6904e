"""Errors as sentences: what a person has done, or what does not answer, is told without a traceback."""

from __future__ import annotations

from pydantic import ValidationError

from workers.core.errors import TerraslotError


def sentence(error: BaseException) -> str | None:
    """Return what a person is told about ``error``; None for one that is this program's own fault."""
    if isinstance(error, TerraslotError):
        return str(error)
    if isinstance(error, ValidationError):
        return _invalid(error)
    if isinstance(error, OSError):
        return f"{error.filename or 'This machine'}: {error.strerror or error}."
    return _unreachable(error)


def _invalid(error: ValidationError) -> str:
    problems = "; ".join(
        f"{'.'.join(str(part) for part in problem['loc']) or 'the whole'} ({problem['input']!r}): "
        f"{problem['msg'].removeprefix('Value error, ')}"
        for problem in error.errors()
    )
    return f"That makes no sense: {problems}."


def _unreachable(error: BaseException) -> str | None:
    # Only who has met such an error has these libraries loaded already.
    from kombu.exceptions import OperationalError  # noqa: PLC0415

    from workers.settings import settings  # noqa: PLC0415
    from workers.slots.server import unavailable, without_password  # noqa: PLC0415

    if isinstance(error, OperationalError):
        return (
            f"The broker at {without_password(settings().broker)} can't be reached: {error}. "
            "Start the system with `terraslot up`, or check TERRASLOT_BROKER_URL."
        )
    problem = unavailable(error, settings().redis_url)
    return None if problem is None else str(problem)
