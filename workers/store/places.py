"""Where pending runs stand in their queues, and what holds them: two statements, however many runs are asked about.

The line of a pool is cut where one of these runs stands. Of each piece it is counted how many runs of which kind it
has, and what they require: from that it is told who is in front of whom (:mod:`workers.core.waiting`).
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from itertools import groupby
from typing import Any

from sqlalchemy import BindParameter, Select, bindparam, case, func, select, text
from sqlalchemy.orm import Session

from workers.core.waiting import Demand, MaintenanceLock, Standing
from workers.protocol.kinds import RunKind
from workers.store.models import ACTIVE, OWN_ORDER, RUNNABLE, START_ORDER, STATE_CHANGING, UNSETTLED, WAITING, Base

_runs = Base.metadata.tables["runs"]
_workspaces = Base.metadata.tables["workspaces"]
_states = Base.metadata.tables["rescued_states"]
_ASKED: BindParameter[Any] = bindparam("ids", expanding=True)


def of(session: Session, ids: Collection[str]) -> dict[str, Standing]:
    """Return where those of these runs stand that are pending now, by id. Costs as much as runs wait beside them."""
    if not ids:
        return {}
    lines, queues = _statements()
    found = dict(_in_lines(session.execute(lines, {"ids": list(ids)})))
    if others := [run for run in ids if run not in found]:
        found |= {row.id: _in_queue(row) for row in session.execute(queues, {"ids": others})}
    return found


def _in_lines(rows: Iterable[Any]) -> Iterator[tuple[str, Standing]]:
    """Yield where runs stand in the lines of their pools. A piece begins with its run; the first one may have none."""
    for _, line in groupby(rows, key=lambda row: row.pool):
        before = Counter[Demand]()
        for _, piece in groupby(line, key=lambda row: row.piece):
            counts = list(piece)
            for row in counts:
                if row.id is not None:
                    about = {"start_error": row.start_error, "terraform": row.terraform}
                    yield row.id, Standing(row.kind, row.pool, runnable=True, before=dict(before), **about)
            before.update({(row.kind, row.terraform): row.count for row in counts})


def _in_queue(row: Any) -> Standing:
    return Standing(
        row.kind,
        row.pool,
        runnable=False,
        in_front=row.before,
        active=(row.active, row.status) if row.active else None,
        lock=MaintenanceLock(row.locked_by, row.locked_at, row.lock_message) if row.locked_at else None,
        unsaved=row.unsaved,
    )


@cache
def _statements() -> tuple[Select[Any], Select[Any]]:
    """Return what reads the lines of pools, and the queues of workspaces; built once, and only where runs wait."""
    asked = _runs.c.id.in_(_ASKED)
    piece = func.sum(case((asked, 1), else_=0)).over(partition_by=_runs.c.pool, order_by=START_ORDER).label("piece")
    pools = select(_runs.c.pool).where(_runs.c.id.in_(_ASKED)).correlate(None)
    # The kinds let SQLite choose the index of those that wait, and not that of all runs of the pool.
    in_pools = (_runs.c.pool.in_(pools), _runs.c.kind.in_(RunKind), text(RUNNABLE))
    shown = (_runs.c.id, _runs.c.kind, _runs.c.pool)
    own = (case((asked, column)).label(column.name) for column in (_runs.c.id, _runs.c.start_error))
    line = select(_runs.c.kind, _runs.c.pool, _runs.c.terraform, piece, *own).where(*in_pools).subquery()
    together = (line.c.pool, line.c.piece, line.c.kind, line.c.terraform)
    of_run = (func.max(column).label(column.name) for column in (line.c.id, line.c.start_error))
    counted = select(*together, func.count().label("count"), *of_run).group_by(*together)

    workspaces = select(_runs.c.workspace).where(_runs.c.id.in_(_ASKED)).correlate(None)
    in_workspaces = (_runs.c.workspace.in_(workspaces), text(STATE_CHANGING))
    own_before = (func.row_number().over(partition_by=_runs.c.workspace, order_by=OWN_ORDER) - 1).label("before")
    waiting = (*in_workspaces, text(WAITING))
    queue = select(*shown, _runs.c.workspace, own_before).where(*waiting).subquery()
    active = select(_runs.c.id, _runs.c.workspace, _runs.c.status).where(*in_workspaces, text(ACTIVE)).subquery()
    lock = (_workspaces.c.locked_by, _workspaces.c.locked_at, _workspaces.c.lock_message)
    held = queue.outerjoin(active, active.c.workspace == queue.c.workspace)
    held = held.outerjoin(_workspaces, _workspaces.c.name == queue.c.workspace)
    rescued = select(_states.c.run).where(_states.c.workspace == queue.c.workspace, text(UNSETTLED)).limit(1)
    unsaved = rescued.scalar_subquery().label("unsaved")
    queued = select(queue, active.c.id.label("active"), active.c.status, *lock, unsaved).select_from(held)
    return counted.order_by(line.c.pool, line.c.piece), queued.where(queue.c.id.in_(_ASKED))
