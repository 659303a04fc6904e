"""What a pool was over time, and what was decided about its size, as charts and lists show it."""

from dataclasses import dataclass
from datetime import datetime

from workers.core.pool_history import Sample, merged, resolution, span
from workers.services.pools.views import DecisionView, decision
from workers.services.system import System
from workers.store import decisions, pools, samples

_MOST_DECISIONS = 200


@dataclass(frozen=True)
class PoolHistory:
    """A pool from ``since`` to ``until``: points that stand for ``seconds`` each, and decisions about its size.

    Of each number, a point has the largest. A point that is missing says that no cycle of the pool has ended in its
    time. ``more_decisions``: there are older ones in this time, which the list of decisions has.
    """

    pool: str
    since: datetime
    until: datetime
    seconds: int
    samples: list[Sample]
    decisions: list[DecisionView]
    more_decisions: bool


@dataclass(frozen=True)
class DecisionPage:
    """Decisions about a pool's size, the newest first, and what to ask with for older ones; None at the end."""

    decisions: list[DecisionView]
    before: int | None


def of(system: System, pool: str, since: datetime | None = None, until: datetime | None = None) -> PoolHistory:
    """Return the history of a pool, within what is kept. Raises :class:`UnknownPool`."""
    now = system.now()
    begin, end = span(since, until, now)
    length, seconds = resolution(begin, end, now)
    with system.database.read() as session:
        pools.status(session, pool)
        found = samples.between(session, pool, length, begin, end)
        decided = decisions.between(session, pool, begin, end, _MOST_DECISIONS + 1)
    return PoolHistory(
        pool,
        begin,
        end,
        seconds,
        list(merged(found, seconds)),
        list(map(decision, decided[:_MOST_DECISIONS])),
        len(decided) > _MOST_DECISIONS,
    )


def decided(system: System, pool: str, before: int | None = None, limit: int = 50) -> DecisionPage:
    """Return a page of what was decided about a pool's size. Raises :class:`UnknownPool`."""
    with system.database.read() as session:
        pools.status(session, pool)
        found = decisions.recent(session, pool, limit, before)
    return DecisionPage(list(map(decision, found)), found[-1].id if len(found) == limit else None)
