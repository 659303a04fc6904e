"""What is kept for how long: the history of runs, and that of the pools' sizes. Beat has the rest removed.

Logs and Celery's results are in Redis, which lets them expire by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from workers.services.system import System
from workers.store import retention

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

log = structlog.get_logger(__name__)

# A transaction removes so many rows at most, since everybody else's writes to SQLite wait for it; one call does so
# many transactions, since a task has to be over long before its message is delivered again.
BATCH = 500
BATCHES = 20


def purge(system: System) -> dict[str, int]:
    """Remove what is older than the settings say, as far as one call goes; return how much of what."""
    runs = system.now() - timedelta(days=system.settings.run_retention_days)
    decisions = system.now() - timedelta(days=system.settings.decision_retention_days)
    forgotten = {
        "runs": _purge(system, retention.forget_runs, runs),
        "decisions": _purge(system, retention.forget_decisions, decisions),
        "pod_failures": _purge(system, retention.forget_pod_failures, decisions),
    }
    if any(forgotten.values()):
        log.info("history forgotten", **forgotten)
    return forgotten


def _purge(system: System, batch: Callable[[Session, datetime, int], int], before: datetime) -> int:
    total = 0
    for _ in range(BATCHES):
        with system.database.begin() as session:
            forgotten = batch(session, before, BATCH)
        total += forgotten
        if forgotten < BATCH:
            break
    return total
