"""Decisions about the size of pools, and the failures of pods that they take into account."""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from workers.store.models import PodFailure, ScalingDecision


def record(
    session: Session, pool: str, now: datetime, *, current: int, desired: int, reason: str, facts: dict[str, Any]
) -> None:
    """Store a decision with the facts it was made from: a :class:`PoolFacts` as a dict."""
    session.add(ScalingDecision(pool=pool, at=now, current=current, desired=desired, reason=reason, facts=facts))


def recent(session: Session, pool: str, limit: int, before: int | None = None) -> list[ScalingDecision]:
    """Return the latest decisions about a pool, the newest first; those before the one with the id ``before``."""
    wanted = sa.select(ScalingDecision).where(ScalingDecision.pool == pool)
    if before is not None:
        wanted = wanted.where(ScalingDecision.id < before)
    return list(session.scalars(wanted.order_by(ScalingDecision.id.desc()).limit(limit)))


def between(session: Session, pool: str, since: datetime, until: datetime, limit: int) -> list[ScalingDecision]:
    """Return the latest decisions about a pool in this time, the newest first."""
    wanted = sa.select(ScalingDecision).where(ScalingDecision.pool == pool, ScalingDecision.at.between(since, until))
    return list(session.scalars(wanted.order_by(ScalingDecision.at.desc(), ScalingDecision.id.desc()).limit(limit)))


def record_pod_failure(session: Session, pool: str, now: datetime, pod: str, reason: str) -> None:
    """Store that a pod failed or never registered; or that one could not be created, which has no name then."""
    session.add(PodFailure(pool=pool, at=now, pod=pod, reason=reason))


def last_failed_start(session: Session, pool: str, since: float) -> PodFailure | None:
    """Return the latest failure after ``since``, in seconds since the epoch, of a pod of a pool that was there."""
    after = datetime.fromtimestamp(since, UTC)
    failed = sa.select(PodFailure).where(PodFailure.pool == pool, PodFailure.at > after, PodFailure.pod != "")
    return session.scalar(failed.order_by(PodFailure.at.desc(), PodFailure.id.desc()).limit(1))


def last_failure(session: Session, pool: str) -> PodFailure | None:
    """Return the latest failure of a pool: of a pod that was there, or of one that could not be created."""
    failed = sa.select(PodFailure).where(PodFailure.pool == pool)
    return session.scalar(failed.order_by(PodFailure.at.desc(), PodFailure.id.desc()).limit(1))


def pod_failures(session: Session, pool: str, since: float) -> list[float]:
    """Return when pods of a pool failed after ``since``, the oldest first. Times are seconds since the epoch."""
    after = datetime.fromtimestamp(since, UTC)
    failed = sa.select(PodFailure.at).where(PodFailure.pool == pool, PodFailure.at > after).order_by(PodFailure.at)
    return [at.timestamp() for at in session.scalars(failed)]
