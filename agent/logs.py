"""The agent's own log: structured lines on stderr, its libraries' among them."""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from agent.settings import AgentSettings


def set_up(settings: AgentSettings) -> FilteringBoundLogger:
    """Configure logging for this process and return the agent's logger, bound to its pool and name."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    is_json = settings.log_format == "json"
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if is_json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    final: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    final += [structlog.processors.format_exc_info] if is_json else []
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=[*shared, _bind(settings)], processors=[*final, renderer])
    )
    logging.basicConfig(handlers=[handler], level=settings.log_level, force=True)
    # What libraries say while debugging includes whole messages, variables among them.
    for name in ("celery", "kombu", "redis"):
        logging.getLogger(name).setLevel(max(logging.INFO, logging.getLevelName(settings.log_level)))
    # One line for each order is the agent's own; Celery would add two.
    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logger: FilteringBoundLogger = structlog.get_logger("agent").bind(pool=settings.pool, agent=settings.agent)
    return logger


def _bind(settings: AgentSettings) -> Processor:
    def bind(_logger: object, _name: str, event: EventDict) -> EventDict:
        event["pool"], event["agent"] = settings.pool, settings.agent
        return event

    return bind
