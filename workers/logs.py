"""Structured logs of the control plane: one event a line, as text for people or as JSON."""

from __future__ import annotations

import logging
import sys

import structlog

from workers.settings import Settings


def configure(config: Settings) -> None:
    """Send every log line of this process, structlog's and the standard library's, to stderr in one format."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if config.log_format == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _exceptions(config), render],
        )
    )
    logging.basicConfig(level=config.log_level, handlers=[handler], force=True)
    # Every message received and done, with its arguments: the services say what matters.
    for chatter in ("celery.worker.strategy", "celery.app.trace", "celery.beat"):
        logging.getLogger(chatter).setLevel("DEBUG" if config.log_level == "DEBUG" else "WARNING")
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _exceptions(config: Settings) -> structlog.typing.Processor:
    if config.log_format == "json":
        return structlog.processors.format_exc_info
    return lambda _logger, _method, event: event
