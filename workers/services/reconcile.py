"""Make the three views of a pool agree: the executor of what :mod:`workers.core.reconcile` decides.

Any view that can't be read ends the pass with nothing changed: an API error means "unknown", not "gone" (F24).
"""

from __future__ import annotations

from datetime import datetime

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
            _perform(system, spec, action, holding)
        except TerraslotError as error:
            log.warning("reconcile action failed", pool=spec.name, action=type(action).__name__, error=str(error))
    return actions


def _perform(system: System, spec: PoolSpec, action: Action, holding: dict[str, Run]) -> None:
    slots = system.slots(spec.name)
    match action:
        case DeletePod():
            _delete_pod(system, spec, action)
        case ForgetAgent():
            agent_gone(system, spec.name, action.agent, action.incarnation, "its pod is gone")
        case LoseRun():
            lose(system, holding[action.run.id], action.reason, may_have_started=True)
            if action.lease is not None:
                slots.release(action.run.id, action.lease.token)
        case RevokeOrder():
            if slots.cancel(action.run.id, CancelMode.INTERRUPT) is CancelOutcome.REVOKED:
                why = f"its order was not taken within {spec.timeouts.redeem:g} s"
                lose(system, holding[action.run.id], why, may_have_started=False)
        case ResendOrder():
            _resend(system, spec, action, holding[action.run.id])
        case ReserveAgain():
            slots.reserve(action.run.id, action.lease.token, action.run.confirm_until or 0.0)
        case ReleaseLease():
            slots.release(action.lease.run, action.lease.token)
            log.info("leftover lease released", pool=spec.name, run=action.lease.run, agent=action.lease.agent)
        case ExpireRun():
            expire(system, holding[action.run.id])
        case CancelRun():
            _cancel(system, action, holding[action.run.id])


def _resend(system: System, spec: PoolSpec, action: ResendOrder, run: Run) -> None:
    with system.database.read() as session:
        workspace = workspaces.get(session, run.workspace)
    phase = Phase.PLAN if run.status is RunStatus.PLANNING else Phase.APPLY
    orders.send(system, run, action.lease, phase, spec, workspace)
    log.info("order sent again", run=run.id, agent=action.lease.agent, phase=phase.value)


def _cancel(system: System, action: CancelRun, run: Run) -> None:
    log.warning("run is ended", run=run.id, why=action.reason, mode=action.mode.value)
    outcome = system.slots(run.pool).cancel(run.id, action.mode)
    if outcome is CancelOutcome.REVOKED:
        end(system, run, RunEvent.CANCELLED)
    elif outcome is CancelOutcome.REQUESTED and run.agent and run.token:
        orders.send_cancel(system, run, run.agent, run.token, action.mode)


def _delete_pod(system: System, spec: PoolSpec, action: DeletePod) -> None:
    log.warning("pod deleted", pool=spec.name, pod=action.pod.name, why=action.reason)
    system.pods(spec).delete(action.pod, force=action.force)
    with system.database.begin() as session:
        pools.set_status(session, spec.name, f"pod {action.pod.name}: {action.reason}", system.now())
        if action.failed_to_start:
            decisions.record_pod_failure(session, spec.name, system.now(), action.pod.name, action.reason)


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
