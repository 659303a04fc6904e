"""What the database knows of pools, as people look at them: six statements, however many pools there are."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from workers.core.waiting import Outlook
from workers.protocol.kinds import RunKind
from workers.store.configurations import OUTLOOK, outlook
from workers.store.models import ACTIVE, RUNNABLE, START_ORDER, PodFailure, Pool, Run, ScalingDecision

# The rank among the runs that a free slot would let start.
_RANK = sa.func.row_number().over(partition_by=(Run.pool, Run.kind), order_by=START_ORDER)
_newer = aliased(ScalingDecision)
# The id from which on a pool has as many decisions as are wanted: one look into an index for each pool.
_DECISIONS_FROM = (
    sa.select(_newer.id)
    .where(_newer.pool == Pool.name)
    .order_by(_newer.id.desc())
    .offset(sa.bindparam("decisions") - 1)
    .limit(1)
    .correlate(Pool)
    .scalar_subquery()
)


@dataclass(frozen=True, slots=True)
class StoredPool:
    """One pool: its configuration as JSON, its status message, its runs and the latest decisions about its size.

    ``programs``: what its agents have, as it is stored. ``outlook``: what its last cycle says of agents to come.
    ``holding``: the runs that hold a slot, the oldest first.
    ``pending``: by kind, how many runs a free slot would let start. ``waiting``: the first of them, in the order in
    which they start. ``failures``: when its pods failed to start, in seconds since the epoch.
    """

    spec: str
    status_message: str | None
    programs: dict[str, Any] | None
    outlook: Outlook | None
    holding: Sequence[Run]
    pending: Mapping[RunKind, int]
    waiting: Sequence[Run]
    decisions: Sequence[ScalingDecision]
    failures: tuple[float, ...]


def read(
    session: Session, names: Collection[str] | None = None, *, waiting: int, decisions: int, failed_since: datetime
) -> dict[str, StoredPool]:
    """Return these pools, or all, by name and in its order; up to so many runs and decisions of each.

    ``failed_since``: from when on failures are read.

    Raises :class:`LookupError` or :class:`ValueError` where anything of any of them can't be read.
    """

    def chosen(pool: Any) -> sa.ColumnElement[bool]:
        return sa.true() if names is None else pool.in_(names)

    holders = sa.select(Run).where(chosen(Run.pool), sa.text(ACTIVE)).order_by(Run.created_at, Run.id)
    counts = sa.select(Run.pool, Run.kind, sa.func.count()).where(chosen(Run.pool), sa.text(RUNNABLE))
    ranked = sa.select(Run.id, _RANK.label("rank")).where(chosen(Run.pool), sa.text(RUNNABLE)).subquery()
    first = sa.select(Run).join(ranked, ranked.c.id == Run.id).where(ranked.c.rank <= waiting).order_by(*START_ORDER)
    latest = sa.select(ScalingDecision).join(Pool, Pool.name == ScalingDecision.pool).where(chosen(Pool.name))
    latest = latest.where(ScalingDecision.id >= sa.func.coalesce(_DECISIONS_FROM, 0))
    columns = Pool.name, sa.cast(Pool.spec, sa.Text), Pool.status_message, Pool.programs, *OUTLOOK
    rows = sa.select(*columns).where(chosen(Pool.name)).order_by(Pool.name)

    failed = sa.select(PodFailure).where(chosen(PodFailure.pool), PodFailure.at > failed_since)

    pending = defaultdict[str, dict[RunKind, int]](lambda: dict.fromkeys(RunKind, 0))
    for pool, kind, count in session.execute(counts.group_by(Run.pool, Run.kind)):
        pending[pool][kind] = count
    holding_of, waiting_of = _by_pool(session.scalars(holders)), _by_pool(session.scalars(first))
    decisions_of = _by_pool(session.scalars(latest.order_by(ScalingDecision.id.desc()), {"decisions": decisions}))
    failures_of = _by_pool(session.scalars(failed.order_by(PodFailure.at)))
    return {
        name: StoredPool(
            spec,
            status,
            programs,
            outlook(seen),
            holding_of[name],
            pending[name],
            waiting_of[name][:waiting],
            decisions_of[name],
            tuple(failure.at.timestamp() for failure in failures_of[name]),
        )
        for name, spec, status, programs, *seen in session.execute(rows)
    }


def _by_pool(rows: Any) -> defaultdict[str, list[Any]]:
    of = defaultdict[str, list[Any]](list)
    for row in rows:
        of[row.pool].append(row)
    return of
