"""Samples of pools over time: one row for each bucket, which keeps the largest numbers that were entered."""

from dataclasses import asdict, fields, replace
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from workers.core.pool_history import KEPT, Sample, bucket
from workers.store.database import insert_of
from workers.store.models import Base

_samples = Base.metadata.tables["pool_samples"]
_COLUMNS = [_samples.c[field.name] for field in fields(Sample)]
_NUMBERS = [column.name for column in _COLUMNS if column.name != "at"]


def record(session: Session, pool: str, sample: Sample) -> None:
    """Enter what a pool is at a moment, into its buckets; safe twice."""
    rows = [
        {"pool": pool, "seconds": seconds, **asdict(replace(sample, at=bucket(sample.at, seconds)))} for seconds in KEPT
    ]
    session.execute(_enter(session.get_bind().dialect.name), rows)


def between(session: Session, pool: str, seconds: int, since: datetime, until: datetime) -> list[Sample]:
    """Return the samples of a pool in buckets of this length that overlap this time, the oldest first."""
    of = (_samples.c.pool == pool, _samples.c.seconds == seconds)
    wanted = sa.select(*_COLUMNS).where(*of, _samples.c.at >= bucket(since, seconds), _samples.c.at <= until)
    return [Sample(*row) for row in session.execute(wanted.order_by(_samples.c.at))]


def purge(session: Session, seconds: int, before: datetime, limit: int) -> int:
    """Remove samples in buckets of this length that are older, those of a moment together; return how many.

    About ``limit`` of them, the oldest first.
    """
    old = (_samples.c.seconds == seconds, _samples.c.at < before)
    last = session.scalar(sa.select(_samples.c.at).where(*old).order_by(_samples.c.at).offset(limit - 1).limit(1))
    gone = sa.delete(_samples).where(*old, _samples.c.at <= (before if last is None else last))
    return len(session.execute(gone.returning(_samples.c.pool)).all())


@cache
def _enter(dialect: str) -> Any:
    larger = sa.func.max if dialect == "sqlite" else sa.func.greatest
    new = insert_of(dialect)(_samples)
    largest = {name: larger(_samples.c[name], new.excluded[name]) for name in _NUMBERS}
    return new.on_conflict_do_update(index_elements=list(_samples.primary_key.columns), set_=largest)
