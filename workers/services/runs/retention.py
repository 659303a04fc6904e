"""Purge the history of runs and of the pools' sizes that is older than the settings keep.

Logs and Celery's results are in Redis, where they expire.
"""

from collections.abc import Callable
from datetime import timedelta

import structlog

from workers.services.system import System
from workers.store import retention
from workers.store.database import Session
from workers.store.retention import DECISIONS, POD_FAILURES, purge_rows

log = structlog.get_logger(__name__)

# Rows that one transaction removes at most: all other writes to SQLite wait for it.
BATCH = 500
# Transactions of one call: a task has to be over long before its message is delivered again.
BATCHES = 20


def purge(system: System) -> dict[str, int]:
    """Remove what is older than the settings keep, up to ``BATCHES`` batches of each kind; return how many rows."""
    runs = system.now() - timedelta(days=system.settings.run_retention_days)
    decisions = system.now() - timedelta(days=system.settings.decision_retention_days)
    purged = {
        "runs": _purge(system, lambda session: retention.purge_runs(session, runs, BATCH)),
        "decisions": _purge(system, lambda session: purge_rows(session, DECISIONS, decisions, BATCH)),
        "pod_failures": _purge(system, lambda session: purge_rows(session, POD_FAILURES, decisions, BATCH)),
    }
    if any(purged.values()):
        log.info("history purged", **purged)
    return purged


def _purge(system: System, batch: Callable[[Session], int]) -> int:
    total = 0
    for _ in range(BATCHES):
        with system.database.begin() as session:
            purged = batch(session)
        total += purged
        if purged < BATCH:
            break
    return total
