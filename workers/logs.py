"""Structured logs of every process, the agent's too: one event a line, as text for people or as JSON."""

import logging
import sys

import structlog
from structlog.typing import Processor


def configure(level: str, form: str, **about: str) -> None:
    """Send every log line of this process, structlog's and the standard library's, to stderr in one format.

    ``form`` is ``console`` or ``json``; the fields in ``about`` are in every line.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        lambda _logger, _method, event: {**about, **event},
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering(form)],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    _quieten(level)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def rendering(form: str) -> list[Processor]:
    """Return what renders an event as a line. Tracebacks are plain: local variables may hold secrets."""
    if form == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]


def _quieten(level: str) -> None:
    # At DEBUG, libraries log whole messages, variables among them.
    for name in ("celery", "kombu", "redis"):
        logging.getLogger(name).setLevel({"DEBUG": "INFO"}.get(level, level))
    # At INFO, these log every message twice; the services and the agent log what matters.
    for name in ("celery.worker.strategy", "celery.app.trace", "celery.beat"):
        logging.getLogger(name).setLevel({"DEBUG": "INFO", "INFO": "WARNING"}.get(level, level))
