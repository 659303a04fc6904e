"""What a pool was over time: samples in buckets of several lengths, coarser ones for longer. Pure.

Every cycle enters what it has seen into the bucket of each length that it falls into, which keeps the largest number of
each kind. So a bucket that is entered twice is the same, coarse buckets are never made from finer ones, and a short
peak is seen however much time a chart shows. A bucket that is missing says that no cycle has ended in it.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, replace
from datetime import UTC, datetime, timedelta

# By a bucket's length in seconds, how long it is kept: 30 s for 6 h, 5 min for 7 days, 1 h for 90 days.
KEPT = {30: timedelta(hours=6), 300: timedelta(days=7), 3600: timedelta(days=90)}
LONGEST = max(KEPT.values())
MOST_POINTS = 500


@dataclass(frozen=True, slots=True)
class Sample:
    """The largest numbers from ``at`` on, for the length of its bucket.

    ``ready`` agents accept runs, ``starting`` pods have not registered; ``running`` and ``reserved`` are slots,
    ``waiting_*`` runs that lack nothing but a slot.
    """

    at: datetime
    ready: int
    starting: int
    running: int
    reserved: int
    waiting_plans: int
    waiting_applies: int


def bucket(at: datetime, seconds: int) -> datetime:
    """Return when the bucket of this length begins that a moment falls into."""
    return datetime.fromtimestamp(at.timestamp() // seconds * seconds, UTC)


def span(since: datetime | None, until: datetime | None, now: datetime) -> tuple[datetime, datetime]:
    """Return the time to look at, within what is kept: six hours before ``until`` where ``since`` is not said."""
    oldest = now - LONGEST
    end = max(oldest, min(until or now, now))
    begin = end - KEPT[30] if since is None else since
    return max(oldest, min(begin, end)), end


def resolution(since: datetime, until: datetime, now: datetime) -> tuple[int, int]:
    """Return the length of the finest buckets that are kept since then, and that of the points that they make."""
    kept_since = {seconds: now - kept - timedelta(seconds=seconds) for seconds, kept in KEPT.items()}
    length = next((seconds for seconds, oldest in kept_since.items() if since >= oldest), max(KEPT))
    # Its ends lie within a point each.
    points = math.ceil((until - since).total_seconds() / length / (MOST_POINTS - 2))
    return length, length * max(1, points)


def merged(samples: Iterable[Sample], seconds: int) -> Iterator[Sample]:
    """Yield samples, which come in their order, in buckets of this length."""
    last: Sample | None = None
    for sample in samples:
        at = bucket(sample.at, seconds)
        if last is not None and last.at == at:
            last = Sample(at, *map(max, astuple(last)[1:], astuple(sample)[1:]))
            continue
        if last is not None:
            yield last
        last = replace(sample, at=at)
    if last is not None:
        yield last
