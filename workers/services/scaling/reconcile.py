"""Make the three views of a pool agree: the executor of what :mod:`workers.core.reconcile` decides.

Any view that can't be read ends the pass with nothing changed: an API error means "unknown", not "gone" (F24).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import singledispatch
from typing import Any

import structlog

from workers.core.lifecycle import RunEvent, RunStatus
from workers.core.reconcile import (
    Action,
    CancelRun,
    DeletePod,
    DeregisterAgent,
    DrainAgent,
    ExpireRun,
    FinishRemoval,
    HeldRun,
    PauseDeadline,
    ReleaseLease,
    RequeueOrFail,
    ResendOrder,
    ResumeDeadline,
    RevertConfirmation,
    RevokeOrder,
    Views,
    empty_list_is_suspicious,
    reconcile,
)
from workers.protocol.errors import TerraslotError, Unavailable
from workers.protocol.kinds import Phase
from workers.protocol.leases import AgentRecord, CancelOutcome
from workers.services.errors import isolate
from workers.services.pod_snapshot import PodSnapshot
from workers.services.runs import orders
from workers.services.runs.dispatch import freed
from workers.services.runs.finish import apply_deadline, end, expire, fail, requeue_or_fail
from workers.services.runs.report import agent_gone
from workers.services.runs.undeliverable import end_unreported
from workers.services.system import System
from workers.slots.locks import renew_lock
from workers.slots.slot_map import WATCH_GAP, SlotMap
from workers.specs.pools import PoolSpec
from workers.store import decisions, pools, runs
from workers.store.models import Run

log = structlog.get_logger(__name__)

# So many actions without an answer end a pass: a cluster that hangs would be waited for once for each.
GIVE_UP_AFTER = 3


@dataclass(frozen=True)
class Pass:
    """What the actions of one pass work on. ``holding``: the runs that held a slot when the views were read, by id.

    ``removed``: why pods were deleted, by name.
    """

    system: System
    spec: PoolSpec
    listing: PodSnapshot
    holding: Mapping[str, Run]
    removed: dict[str, str] = field(default_factory=dict)

    @property
    def slots(self) -> SlotMap:
        """The pool's slot map."""
        return self.system.slots(self.spec.name)


def reconcile_pods(system: System, spec: PoolSpec) -> PodSnapshot:
    """Compare the views of one pool and perform what is to be done; return the pods as they are then.

    Raises :class:`Unavailable`, having changed nothing, where a view can't be read, or can't be true; and
    :class:`LockLost` before it would change anything after its turn.
    """
    holding = _holding(system, spec)
    slots = system.slots(spec.name)
    # Each cycle is a look: however rare they are, what lies between two of them is no gap.
    slots.mark_silent(spec.timeouts.silent, max(WATCH_GAP, 2 * system.settings.cycle_seconds))
    watched = slots.watched()
    agents = slots.snapshot()
    at = Pass(system, spec, PodSnapshot(system, spec), holding)
    views = Views([], agents, at.listing.pods, watched[1])
    if not system.pods(spec).list_is_authoritative and empty_list_is_suspicious(views, watched[0]):
        raise Unavailable(
            f"No pod of the pool {spec.name!r} is listed, but its agents are heard: "
            "check TERRASLOT_NAMESPACE, TERRASLOT_INSTANCE and TERRASLOT_KUBECONFIG."
        )
    if any(isinstance(action, DeletePod) for action in _perform_all(at, agents, watched)):
        _look_again(at, agents)
    end_unreported(system, spec, holding.values())
    return at.listing


def _look_again(at: Pass, agents: Sequence[AgentRecord]) -> None:
    """Let go at once of what pods held that were removed at once.

    The listing is the one from before, with what was done since. So agents and leases that are newer than it are left
    out: their pods may be newer as well, which looks as if they were gone.
    """
    known = {agent.name for agent in agents}
    tokens = {run.token for run in at.holding.values()}
    fresh = {run.id: run for run in _holding(at.system, at.spec).values() if run.token in tokens}
    left = [agent for agent in at.slots.snapshot() if agent.name in known]
    _perform_all(replace(at, holding=fresh), left, at.slots.watched())


def _holding(system: System, spec: PoolSpec) -> dict[str, Run]:
    with system.database.read() as session:
        return {run.id: run for run in runs.holding(session, spec.name)}


def _perform_all(at: Pass, agents: Sequence[AgentRecord], watched: tuple[float, float]) -> list[Action]:
    now, watched_since = watched
    views = Views([_view(run) for run in at.holding.values()], agents, at.listing.pods, watched_since)
    actions = reconcile(views, at.spec, now)
    unanswered = 0
    for action in actions:
        renew_lock()
        said = {"pool": at.spec.name, "action": type(action).__name__, "about": _about(action)}
        with isolate("reconcile action failed", **said):
            try:
                perform(action, at)
            except TerraslotError as error:
                log.warning("reconcile action failed", error=str(error), **said)
                unanswered += isinstance(error, Unavailable)
                if unanswered == GIVE_UP_AFTER:
                    raise
    return actions


def _about(action: Action) -> str:
    """Return the run, pod or agent that an action is about."""
    match action:
        case DeletePod(pod) | FinishRemoval(pod):
            return pod.name
        case DrainAgent(agent) | DeregisterAgent(agent):
            return agent
        case ReleaseLease(lease):
            return lease.run
    return action.run.id


@singledispatch
def perform(action: Action, at: Pass) -> None:  # noqa: ARG001
    """Perform one action."""
    raise TypeError(f"{action!r} is not an action")


@perform.register
def _(action: DeletePod, at: Pass) -> None:
    log.warning("pod deleted", pool=at.spec.name, pod=action.pod.name, why=action.reason)
    at.listing.delete(action.pod, force=action.force)
    at.removed[action.pod.name] = action.reason
    with at.system.database.begin() as session:
        pools.set_status(session, at.spec.name, f"pod {action.pod.name}: {action.reason}", at.system.now())
        if action.failed_to_start:
            decisions.record_pod_failure(session, at.spec.name, at.system.now(), action.pod.name, action.reason)


@perform.register
def _(action: FinishRemoval, at: Pass) -> None:
    if at.slots.take_over(action.pod.name, secrets.token_hex(8), expect=action.claim):
        at.listing.delete(action.pod)
        log.info("pod deleted", pool=at.spec.name, pod=action.pod.name, why="its removal was begun and not finished")


@perform.register
def _(action: DrainAgent, at: Pass) -> None:
    at.slots.drain(action.agent)
    log.info("agent drains", pool=at.spec.name, agent=action.agent, why=action.reason)


@perform.register
def _(action: DeregisterAgent, at: Pass) -> None:
    removed = at.removed.get(action.agent)
    why = f"its pod was removed: {removed}" if removed else "its pod is gone"
    agent_gone(at.system, at.spec.name, action.agent, action.instance_id, why)


@perform.register
def _(action: RequeueOrFail, at: Pass) -> None:
    lost = requeue_or_fail(at.system, at.holding[action.run.id], action.reason, may_have_started=True)
    # Where the run went on meanwhile, its slot is still its own.
    if lost is not None and action.lease is not None:
        at.slots.release(action.run.id, action.lease.token)


@perform.register
def _(action: RevokeOrder, at: Pass) -> None:
    if at.slots.revoke(action.lease.run, action.lease.token):
        why = f"its order was not taken within {at.spec.timeouts.redeem:g} s"
        requeue_or_fail(at.system, at.holding[action.run.id], why, may_have_started=False)


@perform.register
def _(action: PauseDeadline, at: Pass) -> None:
    _note(at, action.run, "order waits for its silent agent", deadline=None)


@perform.register
def _(action: ResumeDeadline, at: Pass) -> None:
    _note(at, action.run, "agent heard again", deadline=apply_deadline(at.system.now(), at.spec))


@perform.register
def _(action: ResendOrder, at: Pass) -> None:
    run, lease = at.holding[action.run.id], action.lease
    phase = Phase.PLAN if run.status is RunStatus.PLANNING else Phase.APPLY
    try:
        with at.system.database.read() as session:
            order = orders.make(at.system, session, run, phase, at.spec, slot=lease.slot, token=lease.token)
    except orders.NotMade as error:
        # The first order may have been taken just now.
        if at.slots.revoke(lease.run, lease.token):
            fail(at.system, run, str(error))
        return
    orders.send(at.system, run, order)
    log.info("order sent again", run=run.id, agent=lease.agent, phase=phase.value)


@perform.register
def _(action: RevertConfirmation, at: Pass) -> None:
    # In the transaction: a confirmation that was only slow is committed before it, and goes on; or after it, and then
    # its token starts nothing any more.
    with at.system.database.begin() as session:
        if runs.note(
            session, action.run.id, "confirmation not completed", expect=RunStatus.APPLY_PENDING,
            expect_token=action.run.token, now=at.system.now(),
        ):  # fmt: skip
            at.slots.reserve(action.run.id, action.lease.token, action.run.confirm_until or 0.0)


@perform.register
def _(action: ReleaseLease, at: Pass) -> None:
    at.slots.release(action.lease.run, action.lease.token)
    log.info("leftover lease released", pool=at.spec.name, run=action.lease.run, agent=action.lease.agent)


@perform.register
def _(action: ExpireRun, at: Pass) -> None:
    freed(at.system, expire(at.system, at.holding[action.run.id]))


@perform.register
def _(action: CancelRun, at: Pass) -> None:
    run = at.holding[action.run.id]
    log.warning("run is ended", run=run.id, why=action.reason, mode=action.mode.value)
    outcome = at.slots.cancel(run.id, action.mode)
    if outcome is CancelOutcome.REVOKED:
        freed(at.system, end(at.system, run, RunEvent.CANCELLED))
    elif outcome is CancelOutcome.REQUESTED:
        orders.send_cancel(at.system, run, action.mode)


def _note(at: Pass, run: HeldRun, words: str, **changes: Any) -> None:
    with at.system.database.begin() as session:
        now = at.system.now()
        runs.note(session, run.id, words, expect=run.status, expect_token=run.token, now=now, **changes)


def _view(run: Run) -> HeldRun:
    return HeldRun(
        id=run.id,
        status=run.status,
        agent=run.agent or "",
        token=run.token or "",
        changed_at=run.updated_at.timestamp(),
        started=run.started_at is not None,
        deadline=_epoch(run.deadline),
        confirm_until=_epoch(run.confirm_until),
        cancel=run.cancel_mode,
    )


def _epoch(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None
