"""Make the three views of a pool agree: the executor of what :mod:`workers.core.reconcile` decides.

A view that can't be read ends reconcile with nothing changed: an API error means "unknown", not "gone" (F24).
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import assert_never

import structlog

from workers import metrics
from workers.core import actions
from workers.core import reconcile as core
from workers.core.lifecycle import EXECUTING, RunEvent, RunNote, RunStatus
from workers.core.pods import PodPhase
from workers.core.views import HeldRun, Views
from workers.protocol.errors import TerraslotError, Unavailable
from workers.protocol.kinds import Phase
from workers.protocol.leases import AgentRecord, Lease
from workers.services import worker_events
from workers.services.errors import isolate
from workers.services.pool_state import PodSnapshot
from workers.services.runs import decide, orders
from workers.services.runs.finish import deadline, end, fail, note, requeue_or_fail
from workers.services.runs.report import agent_gone
from workers.services.runs.undeliverable import end_unreported, receive
from workers.services.runs.wake import freed
from workers.services.system import System
from workers.slots.locks import renew_lock
from workers.slots.report_queue import Found
from workers.slots.slot_map import WATCH_GAP, SlotMap
from workers.specs.pools import PoolSpec
from workers.store import decisions, run_queries, runs, workspaces
from workers.store.models import Run

log = structlog.get_logger(__name__)

# Requests to the cluster without an answer that end the work on a pool: each takes the whole of its timeout, and the
# next cycle tries again.
GIVE_UP_AFTER = 3


@dataclass(frozen=True)
class Context:
    """What actions work on. ``holding``: the runs that held a slot at first; ``deleted``: why pods were, by name."""

    system: System
    spec: PoolSpec
    snapshot: PodSnapshot
    holding: Mapping[str, Run]
    deleted: dict[str, str] = field(default_factory=dict)

    @property
    def slots(self) -> SlotMap:
        """The pool's slot map."""
        return self.system.slots(self.spec.name)


def reconcile_pods(system: System, spec: PoolSpec) -> PodSnapshot:
    """Compare the views of one pool and perform what is to be done; return the pods as they are then.

    Raises :class:`Unavailable`, having changed nothing, where a view can't be read, or can't be true; and
    :class:`LockLost` before a change that would follow the loss of the pool's lock.
    """
    holding = _holding(system, spec)
    slots = system.slots(spec.name)
    # Each cycle watches the map: the time between two of them is no gap, however rare they are.
    slots.mark_silent(spec.timeouts.silent, max(WATCH_GAP, 2 * system.settings.cycle_seconds))
    map_now, watched_since = slots.watched()
    agents = slots.snapshot()
    worker_events.seen(system, spec.name, agents)
    context = Context(system, spec, PodSnapshot(system, spec), holding)
    _take_left_reports(context)
    cordoned = context.snapshot.cordoned_nodes()
    context.snapshot.explain_starts()
    runs_now = system.now().timestamp()
    views = Views(_held(holding), agents, context.snapshot.pods, watched_since, map_now, runs_now, cordoned)
    if not system.pods(spec).list_is_authoritative and core.empty_list_is_suspicious(views):
        raise Unavailable(
            f"No pod of the pool {spec.name!r} is listed, but its agents are heard: "
            "check TERRASLOT_NAMESPACE, TERRASLOT_INSTANCE and TERRASLOT_KUBECONFIG."
        )
    if any(isinstance(action, actions.DeletePod) for action in _perform_all(views, context)):
        _reconcile_deleted(context, agents)
    end_unreported(system, spec, holding.values())
    return context.snapshot


def _take_left_reports(context: Context) -> None:
    """Take the reports that dead agents had kept, before anything is decided about their runs."""
    for report in context.system.pods(context.spec).left_reports(context.spec.name):
        for pod in context.snapshot.pods:
            if pod.phase in (PodPhase.FAILED, PodPhase.SUCCEEDED):
                context.slots.drain(pod.name)  # the slot that becomes free is nobody's
        with isolate("report of a dead agent not taken", pool=context.spec.name):
            receive(context.system, Found(context.spec.name, report, len(report), left=True))


def _reconcile_deleted(context: Context, agents: Sequence[AgentRecord]) -> None:
    """Decide now about the runs of pods of which nothing was left when they were deleted.

    The snapshot of pods is the one from before, with what was done since. So agents and leases that are newer than it
    are left out: their pods may be newer as well, which looks as if they were gone.
    """
    known = {agent.name for agent in agents}
    tokens = {run.token for run in context.holding.values()}
    holding = {run.id: run for run in _holding(context.system, context.spec).values() if run.token in tokens}
    left = [agent for agent in context.slots.snapshot() if agent.name in known]
    map_now, watched_since = context.slots.watched()
    runs_now = context.system.now().timestamp()
    views = Views(_held(holding), left, context.snapshot.pods, watched_since, map_now, runs_now)
    _perform_all(views, replace(context, holding=holding))


def _perform_all(views: Views, context: Context) -> list[actions.Action]:
    decided = core.reconcile(views, context.spec)
    unanswered = 0
    for action in decided:
        renew_lock()
        about = {"pool": context.spec.name, "action": type(action).__name__, "about": _about(action)}
        with isolate("reconcile action failed", **about):
            try:
                perform(action, context)
            except TerraslotError as error:
                log.warning("reconcile action failed", error=str(error), **about)
                unanswered += isinstance(error, Unavailable)
                if unanswered == GIVE_UP_AFTER:
                    raise
    return decided


def _about(action: actions.Action) -> str:
    match action:
        case actions.DeletePod(pod) | actions.FinishRemoval(pod):
            return pod.name
        case actions.DrainAgent(agent) | actions.UndrainAgent(agent) | actions.DeregisterAgent(agent):
            return agent
        case actions.ReleaseLease(lease):
            return lease.run
    return action.run.id


def perform(action: actions.Action, context: Context) -> None:
    """Perform one action."""
    slots, pool = context.slots, context.spec.name
    match action:
        case actions.DeletePod():
            _delete_pod(action, context)
        case actions.FinishRemoval():
            _finish_removal(action, context)
        case actions.DrainAgent(agent, reason, cordon):
            slots.drain(agent, cordon=cordon)
            log.info("agent drains", pool=pool, agent=agent, why=reason)
        case actions.UndrainAgent(agent):
            slots.undrain(agent, cordon=True)
            log.info("agent is given runs again", pool=pool, agent=agent, why="its node takes pods again")
        case actions.DeregisterAgent(agent, instance_id):
            deleted = context.deleted.get(agent)
            why = f"its pod was deleted: {deleted}" if deleted else "its pod is gone"
            agent_gone(context.system, pool, agent, instance_id, why)
        case actions.ReleaseLease(lease):
            slots.release(lease.run, lease.token)
            log.info("leftover lease released", pool=pool, run=lease.run, agent=lease.agent, slot=lease.slot)
        case actions.RequeueOrFail(held, reason, lease):
            _requeue_or_fail(context.holding[held.id], reason, lease, context, may_have_started=True)
        case actions.CancelRun(held, mode, reason):
            log.warning("run cancelled", **context.holding[held.id].about, why=reason, mode=mode.value)
            decide.interrupt(context.system, context.holding[held.id], mode)
        case actions.RepairRun(repair, run, lease):
            _repair(repair, context.holding[run.id], lease, context)
        case _:
            assert_never(action)


def _delete_pod(action: actions.DeletePod, context: Context) -> None:
    pool = context.spec.name
    log.warning("pod deleted", pool=pool, pod=action.pod.name, why=action.reason)
    context.snapshot.delete(action.pod)
    context.deleted[action.pod.name] = action.reason
    if action.failed_to_start:
        metrics.PODS_FAILED.add(pool, "start")
        with context.system.database.begin() as session:
            decisions.record_pod_failure(session, pool, context.system.now(), action.pod.name, action.reason)


def _finish_removal(action: actions.FinishRemoval, context: Context) -> None:
    pod = action.pod
    if context.slots.take_over(pod.name, secrets.token_hex(8), expect=action.claim):
        context.snapshot.delete(pod)
        log.info("pod deleted", pool=context.spec.name, pod=pod.name, why="its removal was begun and not finished")


def _requeue_or_fail(run: Run, why: str, lease: Lease | None, context: Context, *, may_have_started: bool) -> None:
    lost = requeue_or_fail(context.system, run, why, may_have_started=may_have_started)
    # A run that went on meanwhile keeps its slot.
    if lost is not None and lease is not None:
        context.slots.release(run.id, lease.token)


def _repair(repair: actions.Repair, run: Run, lease: Lease, context: Context) -> None:
    match repair:
        case actions.Repair.EXPIRE:
            expecting = {"confirm_until": run.confirm_until}  # unless it was extended just now
            freed(context.system, end(context.system, run, RunEvent.EXPIRED, expecting=expecting))
        case actions.Repair.REMIND:
            _remind(run, context)
        case actions.Repair.REVERT_CONFIRMATION:
            _revert_confirmation(run, lease, context)
        case actions.Repair.RESEND_ORDER:
            _resend_order(run, lease, context)
        case actions.Repair.REVOKE_ORDER:
            if context.slots.revoke(run.id, lease.token):
                why = f"its order was not redeemed within {context.spec.timeouts.redeem:g} s"
                _requeue_or_fail(run, why, lease, context, may_have_started=False)
        case actions.Repair.PAUSE_DEADLINE:
            note(context.system, run, RunNote.DEADLINE_PAUSED, deadline=None)
        case actions.Repair.RESUME_DEADLINE:
            note(context.system, run, RunNote.DEADLINE_RESUMED, deadline=_apply_deadline(run, context))
        case _:
            assert_never(repair)


def _remind(run: Run, context: Context) -> None:
    until = run.confirm_until and run.confirm_until.isoformat()
    # The plan waits as it did before: the time since which it does is not touched.
    reminded = note(
        context.system, run, RunNote.CONFIRMATION_DUE, expecting={"remind_at": run.remind_at}, remind_at=None,
        detail={"until": until} if until else {}, updated_at=run.updated_at,
    )  # fmt: skip
    if reminded is not None:
        log.warning("confirmation expires soon", **run.about, until=until)


def _apply_deadline(run: Run, context: Context) -> datetime:
    with context.system.database.read() as session:
        seconds = workspaces.get(session, run.workspace).timeout(Phase.APPLY, context.spec)
    return deadline(context.system.now(), context.spec, seconds)


def _revert_confirmation(run: Run, lease: Lease, context: Context) -> None:
    # In the transaction: a confirmation that was only slow is committed before it, and goes on; or after it, and then
    # its token starts nothing any more.
    with context.system.database.begin() as session:
        reverted, now = RunNote.CONFIRMATION_REVERTED, context.system.now()
        if runs.note(session, run.id, reverted, expect=RunStatus.APPLY_PENDING, expect_token=run.token, now=now):
            context.slots.reserve(run.id, lease.token, _epoch(run.confirm_until) or 0.0)


def _resend_order(run: Run, lease: Lease, context: Context) -> None:
    system = context.system
    phase = EXECUTING[run.status]
    try:
        with system.database.read() as session:
            order = orders.make(system, session, run, phase, context.spec, slot=lease.slot, token=lease.token)
    except orders.NotMade as error:
        # The agent may have redeemed the first order just now.
        if context.slots.revoke(run.id, lease.token):
            fail(system, run, str(error))
        return
    orders.send(system, [(run, order)])
    log.info("order sent again", **run.about)


def _holding(system: System, spec: PoolSpec) -> dict[str, Run]:
    with system.database.read() as session:
        return {run.id: run for run in run_queries.holding(session, spec.name)}


def _held(holding: Mapping[str, Run]) -> list[HeldRun]:
    return [
        HeldRun(
            id=run.id,
            status=run.status,
            agent=run.agent or "",
            token=run.token or "",
            changed_at=run.updated_at.timestamp(),
            started=run.started_at is not None,
            deadline=_epoch(run.deadline),
            confirm_until=_epoch(run.confirm_until),
            remind_at=_epoch(run.remind_at),
            cancel=run.cancel_mode,
        )
        for run in holding.values()
    ]


def _epoch(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None
