"""The system as the command line uses it: what its services log is for workers, and would be in a person's way."""

import logging
import sys
from functools import cache

import structlog

from workers import logs
from workers.core.approval import Actor
from workers.services import system as services
from workers.services.system import System
from workers.settings import settings


@cache
def system() -> System:
    """Return the system of this process; from now on its services log errors only, to stderr."""
    structlog.configure(
        processors=[structlog.processors.add_log_level, *logs.rendering("console")],
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    return services.system()


def actor() -> Actor:
    """Return who uses this command line. Raises :class:`InvalidRequest` for a name that can't be one."""
    return Actor(settings().person)
