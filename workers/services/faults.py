"""What an exception says about the work that met it: everybody would meet it now, or this one thing always would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from kombu.exceptions import OperationalError
from pydantic import ValidationError

from workers.core.errors import TerraslotError, Unavailable
from workers.core.sealing import NoKey
from workers.slots.server import is_away

log = structlog.get_logger(__name__)

_NAMED_AT_MOST = 3


def is_outage(error: BaseException) -> bool:
    """Whether the platform lacks what the work needs: a server, a way to it, a key. Then the work waits."""
    if isinstance(error, OSError):
        return error.filename is None  # one that names a file is about that file
    return isinstance(error, Unavailable | NoKey | OperationalError) or is_away(error)


@contextmanager
def alone(event: str, **about: Any) -> Iterator[None]:
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
