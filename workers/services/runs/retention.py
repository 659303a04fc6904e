"""Purge the history of runs and pools that is older than the settings keep, and samples that coarser ones stand for.

A run's log goes with it. Celery's results are in Redis, where they expire.
"""

from collections.abc import Callable
from datetime import timedelta

import structlog

from workers.core.pool_history import KEPT
from workers.services.system import System
from workers.store import retention, samples
from workers.store.database import Session
from workers.store.models import PodFailure, Run, ScalingDecision

log = structlog.get_logger(__name__)

# Rows that one transaction removes at most: all other writes to SQLite wait for it.
BATCH = 500
# Transactions of one call: a task has to be over long before its message is delivered again.
BATCHES = 20


def purge(system: System) -> dict[str, int]:
    """Remove what is older than the settings keep, up to ``BATCHES`` batches of each kind; return how many rows."""
    decision_days = system.settings.decision_retention_days
    purged = {
        "runs": _purge(system, Run, system.settings.run_retention_days),
        "decisions": _purge(system, ScalingDecision, decision_days),
        "pod_failures": _purge(system, PodFailure, decision_days),
        "samples": sum(_purge_samples(system, seconds) for seconds in KEPT),
    }
    if any(purged.values()):
        log.info("history purged", **purged)
    return purged


def _purge(system: System, rows: retention.History, days: float) -> int:
    before = system.now() - timedelta(days=days)
    return _in_batches(system, lambda session: retention.purge(session, rows, before, BATCH))


def _purge_samples(system: System, seconds: int) -> int:
    before = system.now() - KEPT[seconds]
    return _in_batches(system, lambda session: samples.purge(session, seconds, before, BATCH))


def _in_batches(system: System, purge: Callable[[Session], int]) -> int:
    total = 0
    for _ in range(BATCHES):
        with system.database.begin() as session:
            purged = purge(session)
        total += purged
        if purged < BATCH:
            break
    return total
