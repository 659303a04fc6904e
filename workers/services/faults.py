"""What an exception says about the work that met it: a server was away, or this work would fail again."""

from __future__ import annotations

from kombu.exceptions import OperationalError
from pydantic import ValidationError

from workers.core.errors import TerraslotError, Unavailable
from workers.slots.server import is_trouble

_NAMED_AT_MOST = 3


def is_transient(error: BaseException) -> bool:
    """Whether the database, Redis, the broker or a cluster did not answer, so that it may succeed another time."""
    return isinstance(error, Unavailable | OperationalError | OSError) or is_trouble(error)


def explained(error: BaseException) -> str:
    """Return an error in words for a run's record: without values, which may be nobody's to see."""
    if isinstance(error, TerraslotError):
        return str(error)
    if isinstance(error, ValidationError):
        problems = error.errors(include_input=False, include_url=False, include_context=False)[:_NAMED_AT_MOST]
        return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in problems) + "."
    return f"an unexpected {type(error).__name__}; the log of the control plane has more of it."
