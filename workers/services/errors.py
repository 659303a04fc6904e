"""Classify errors: what every task would meet now, what is wrong with one thing alone, and what a person is told."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from workers.protocol.encryption import NoKey
from workers.protocol.errors import TerraslotError, Unavailable
from workers.protocol.validation import problems

_NAMED_AT_MOST = 3  # problems in a run's error, which is one line


def is_outage(error: BaseException) -> bool:
    """Whether the platform lacks what the work needs: a server, a way to it, a key. Then the work waits."""
    if isinstance(error, OSError):
        return error.filename is None  # one that names a file is about that file
    from kombu.exceptions import OperationalError  # noqa: PLC0415 - a process that meets this error has loaded kombu

    from workers.slots.redis_server import is_away  # noqa: PLC0415

    return isinstance(error, Unavailable | NoKey | OperationalError) or is_away(error)


@contextmanager
def isolate(event: str, **about: Any) -> Iterator[None]:
    """Log an error of one thing and let the others go on. Raises an outage, which all of them would meet."""
    try:
        yield
    except Exception as error:
        if is_outage(error):
            raise
        import structlog  # noqa: PLC0415 - commands that only read log nothing, and are a tenth faster without it

        structlog.get_logger(__name__).exception(event, **about)


def explained(error: BaseException) -> str:
    """Return an error in words for a run's record: without values, which not every reader of the record may see."""
    if isinstance(error, TerraslotError):
        return str(error)
    if isinstance(error, ValidationError):
        return f"{'; '.join(problems(error, at_most=_NAMED_AT_MOST))}."
    return f"an unexpected {type(error).__name__}; the log of the control plane has more of it."


def user_message(error: BaseException) -> str | None:
    """Return what a person is told about ``error``; None for a fault of this program."""
    if isinstance(error, TerraslotError):
        return str(error)
    if isinstance(error, ValidationError):
        return f"The input is invalid: {'; '.join(problems(error, values=True))}."
    if isinstance(error, OSError):
        return f"{error.filename or 'This machine'}: {error.strerror or error}."
    return _unreachable(error)


def _unreachable(error: BaseException) -> str | None:
    # A process that meets such an error has loaded these libraries already.
    from kombu.exceptions import OperationalError  # noqa: PLC0415

    from workers.settings import settings  # noqa: PLC0415
    from workers.slots.redis_server import START, unavailable  # noqa: PLC0415

    advice = "See that the server runs" if settings().in_cluster else START
    if isinstance(error, OperationalError):
        return (
            f"The broker at {settings().broker.public} can't be reached: {str(error).rstrip('.')}. "
            f"{advice}, or check TERRASLOT_BROKER_URL."
        )
    # Celery wraps the error that its result backend met.
    for met in (error, error.__cause__):
        if (problem := unavailable(met, settings().redis, advice)) is not None:
            return str(problem)
    return None
