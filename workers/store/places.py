"""Where pending runs stand in their queues, and what holds them: two statements, however many runs are asked about.

A state-changing run needs slot 0, which any run may take that starts before it. A plan has the plan-only slots as well,
which only plans take: so what is in front of a plan are plans.
"""

from collections.abc import Collection
from functools import cache
from typing import Any

from sqlalchemy import BindParameter, Select, bindparam, case, func, select, text
from sqlalchemy.orm import Session

from workers.core.waiting import MaintenanceLock, Standing
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
    found = {row.id: _in_line(row) for row in session.execute(lines, {"ids": list(ids)})}
    if others := [run for run in ids if run not in found]:
        found |= {row.id: _in_queue(row) for row in session.execute(queues, {"ids": others})}
    return found


def _in_line(row: Any) -> Standing:
    return Standing(
        row.kind, row.pool, runnable=True, in_front=row.before, start_error=row.start_error, terraform=row.terraform
    )


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
    place = func.row_number
    plans_before = place().over(partition_by=(_runs.c.pool, _runs.c.kind), order_by=START_ORDER) - 1
    any_before = place().over(partition_by=_runs.c.pool, order_by=START_ORDER) - 1
    before = case((_runs.c.kind == RunKind.PLAN, plans_before), else_=any_before).label("before")
    pools = select(_runs.c.pool).where(_runs.c.id.in_(_ASKED)).correlate(None)
    # The kinds let SQLite choose the index of those that wait, and not that of all runs of the pool.
    in_pools = (_runs.c.pool.in_(pools), _runs.c.kind.in_(RunKind), text(RUNNABLE))
    shown = (_runs.c.id, _runs.c.kind, _runs.c.pool)
    line = select(*shown, _runs.c.start_error, _runs.c.terraform, before).where(*in_pools).subquery()

    workspaces = select(_runs.c.workspace).where(_runs.c.id.in_(_ASKED)).correlate(None)
    in_workspaces = (_runs.c.workspace.in_(workspaces), text(STATE_CHANGING))
    own_before = (place().over(partition_by=_runs.c.workspace, order_by=OWN_ORDER) - 1).label("before")
    waiting = (*in_workspaces, text(WAITING))
    queue = select(*shown, _runs.c.workspace, own_before).where(*waiting).subquery()
    active = select(_runs.c.id, _runs.c.workspace, _runs.c.status).where(*in_workspaces, text(ACTIVE)).subquery()
    lock = (_workspaces.c.locked_by, _workspaces.c.locked_at, _workspaces.c.lock_message)
    held = queue.outerjoin(active, active.c.workspace == queue.c.workspace)
    held = held.outerjoin(_workspaces, _workspaces.c.name == queue.c.workspace)
    rescued = select(_states.c.run).where(_states.c.workspace == queue.c.workspace, text(UNSETTLED)).limit(1)
    unsaved = rescued.scalar_subquery().label("unsaved")
    queued = select(queue, active.c.id.label("active"), active.c.status, *lock, unsaved).select_from(held)
    return select(line).where(line.c.id.in_(_ASKED)), queued.where(queue.c.id.in_(_ASKED))
