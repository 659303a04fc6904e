"""Make the three views of a pool agree: the executor of what :mod:`workers.core.reconcile` decides.

Any view that can't be read ends the pass with nothing changed: an API error means "unknown", not "gone" (F24).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import singledispatch

import structlog

from workers.core.errors import TerraslotError
from workers.core.pools import PoolSpec
from workers.core.reconcile import (
    Action,
    CancelRun,
    DeletePod,
    ExpireRun,
    ForgetAgent,
    LoseRun,
    ReleaseLease,
    ResendOrder,
    ReserveAgain,
    RevokeOrder,
    RunView,
    Views,
    reconcile,
)
from workers.core.runs import Phase, RunEvent, RunStatus
from workers.core.slots import CancelMode, CancelOutcome
from workers.services import orders
from workers.services.losses import lose
from workers.services.reports import agent_gone
from workers.services.runs import end, expire
from workers.services.system import System
from workers.store import decisions, pools, runs, workspaces
from workers.store.models import Run

log = structlog.get_logger(__name__)


def reconcile_pods(system: System, spec: PoolSpec) -> list[Action]:
    """Compare the views of one pool and perform what is to be done; return the actions.

    Raises :class:`Unavailable`, having changed nothing, where a view can't be read.
    """
    actions = _pass(system, spec)
    if any(isinstance(action, DeletePod) for action in actions):
        # What was deleted at once need not keep its runs until the next tick.
        actions += _pass(system, spec)
    return actions


def _pass(system: System, spec: PoolSpec) -> list[Action]:
    with system.database.read() as session:
        holding = {run.id: run for run in runs.holding(session, spec.name)}
    slots = system.slots(spec.name)
    slots.mark_silent(spec.timeouts.silent)
    now, watched_since = slots.watched()
    agents = slots.snapshot()
    listed = system.pods(spec).list(spec.name)
    views = Views([_view(run) for run in holding.values()], agents, listed, watched_since)
    actions = reconcile(views, spec, now)
    for action in actions:
        try:
            perform(action, system, spec, holding)
        except TerraslotError as error:
            log.warning("reconcile action failed", pool=spec.name, action=type(action).__name__, error=str(error))
    return actions


@singledispatch
def perform(action: Action, system: System, spec: PoolSpec, holding: Mapping[str, Run]) -> None:  # noqa: ARG001
    """Perform one action. ``holding``: the runs that held a slot when the views were read, by id."""
    raise TypeError(f"{action!r} is not an action")


@perform.register
def _(action: DeletePod, system: System, spec: PoolSpec, _: Mapping[str, Run]) -> None:
    log.warning("pod deleted", pool=spec.name, pod=action.pod.name, why=action.reason)
    system.pods(spec).delete(action.pod, force=action.force)
    with system.database.begin() as session:
        pools.set_status(session, spec.name, f"pod {action.pod.name}: {action.reason}", system.now())
        if action.failed_to_start:
            decisions.record_pod_failure(session, spec.name, system.now(), action.pod.name, action.reason)


@perform.register
def _(action: ForgetAgent, system: System, spec: PoolSpec, _: Mapping[str, Run]) -> None:
    agent_gone(system, spec.name, action.agent, action.incarnation, "its pod is gone")


@perform.register
def _(action: LoseRun, system: System, spec: PoolSpec, holding: Mapping[str, Run]) -> None:
    lose(system, holding[action.run.id], action.reason, may_have_started=True)
    if action.lease is not None:
        system.slots(spec.name).release(action.run.id, action.lease.token)


@perform.register
def _(action: RevokeOrder, system: System, spec: PoolSpec, holding: Mapping[str, Run]) -> None:
    if system.slots(spec.name).cancel(action.run.id, CancelMode.INTERRUPT) is CancelOutcome.REVOKED:
        why = f"its order was not taken within {spec.timeouts.redeem:g} s"
        lose(system, holding[action.run.id], why, may_have_started=False)


@perform.register
def _(action: ResendOrder, system: System, spec: PoolSpec, holding: Mapping[str, Run]) -> None:
    run = holding[action.run.id]
    with system.database.read() as session:
        workspace = workspaces.get(session, run.workspace)
    phase = Phase.PLAN if run.status is RunStatus.PLANNING else Phase.APPLY
    orders.send(system, run, action.lease, phase, pool=spec, workspace=workspace)
    log.info("order sent again", run=run.id, agent=action.lease.agent, phase=phase.value)


@perform.register
def _(action: ReserveAgain, system: System, spec: PoolSpec, _: Mapping[str, Run]) -> None:
    system.slots(spec.name).reserve(action.run.id, action.lease.token, action.run.confirm_until or 0.0)


@perform.register
def _(action: ReleaseLease, system: System, spec: PoolSpec, _: Mapping[str, Run]) -> None:
    system.slots(spec.name).release(action.lease.run, action.lease.token)
    log.info("leftover lease released", pool=spec.name, run=action.lease.run, agent=action.lease.agent)


@perform.register
def _(action: ExpireRun, system: System, _: PoolSpec, holding: Mapping[str, Run]) -> None:
    expire(system, holding[action.run.id])


@perform.register
def _(action: CancelRun, system: System, _: PoolSpec, holding: Mapping[str, Run]) -> None:
    run = holding[action.run.id]
    log.warning("run is ended", run=run.id, why=action.reason, mode=action.mode.value)
    outcome = system.slots(run.pool).cancel(run.id, action.mode)
    if outcome is CancelOutcome.REVOKED:
        end(system, run, RunEvent.CANCELLED)
    elif outcome is CancelOutcome.REQUESTED:
        orders.send_cancel(system, run, action.mode)


def _view(run: Run) -> RunView:
    return RunView(
        id=run.id,
        status=run.status,
        agent=run.agent or "",
        token=run.token or "",
        attempt=run.attempt,
        changed_at=run.updated_at.timestamp(),
        started=run.started_at is not None,
        deadline=_epoch(run.deadline),
        confirm_until=_epoch(run.confirm_until),
        cancel=run.cancel_mode,
    )


def _epoch(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None
