"""Decide about a run: confirm it, discard it, cancel it, let it wait longer.

A decision that comes as a message may be delivered twice. The id of its task is its idempotency key: it is entered
among the run's events in the transaction that decides, so that it is known also where the worker died before Celery
stored the answer. A refusal is entered as well: a confirmation that came before there was a plan, or after it was
gone, must not confirm a later plan that nobody has seen.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import structlog

from workers.core.approval import Approval, Origin
from workers.core.confirmation import DEFAULT_EXTENSION, extended, remind_at
from workers.core.errors import AgentGone, AgentSilent, ApprovalRefused, IllegalTransition, NoRescuedState, NotWaiting
from workers.core.lifecycle import EXECUTING, EventDetail, RunEvent, RunNote
from workers.core.verdicts import Verdict, unapproved, untimely
from workers.protocol.errors import TerraslotError
from workers.protocol.kinds import Phase
from workers.protocol.leases import APPLY_SLOT, CancelMode, CancelOutcome, Lease, SlotState
from workers.services.runs import deliver, finish, orders
from workers.services.runs.outcome import result_of
from workers.services.runs.start import start_apply
from workers.services.runs.wake import freed
from workers.services.system import System
from workers.store import pools, run_queries, runs, workspaces
from workers.store.models import Run, RunEventRecord
from workers.store.workspace_queue import lock_workspace_of

log = structlog.get_logger(__name__)

_REFUSALS = (AgentGone, AgentSilent, ApprovalRefused, IllegalTransition, NoRescuedState, NotWaiting)
_REFUSALS_BY_NAME = {kind.__name__: kind for kind in _REFUSALS}
_UNKNOWN = Origin()


def confirm(system: System, run_id: str, *, attempt: int | None = None, origin: Origin = _UNKNOWN) -> Run:
    """Let the plan of a waiting run be applied, by the agent that made it; or enter an approval that is not the last.

    ``attempt``: the one whose plan was looked at, so that no other is applied. Raises :class:`NotWaiting` where the
    run does not wait for a person, :class:`ApprovalRefused` where its workspace does not let this one confirm,
    :class:`AgentSilent` while the agent that keeps the plan is not heard, and :class:`AgentGone` where that plan is
    gone with its agent: the run is then planned anew, and its new plan wants a confirmation of its own. A run whose
    apply can't be ordered for what its workspace says is returned as failed.
    """
    token, why = orders.new_token(), None
    with system.database.read() as session:
        run = _open(_seen(run_queries.find(session, run_id), attempt), Verdict.CONFIRM)
        pool = pools.get(session, run.pool)
        try:
            order = orders.make(system, session, run, Phase.APPLY, pool, slot=APPLY_SLOT, token=token)
            rules = workspaces.get(session, run.workspace).approval
        except orders.NotMade as error:
            why = str(error)
    if why is not None:
        return _decided(freed(system, finish.fail(system, run, why, detail=origin.detail)), run)
    if rules.is_required and (approved := _approve(system, run, rules, origin)) is not None:
        return approved
    slots = system.slots(run.pool)
    lease = slots.find(run.id)
    # It may be running still, for a moment: the plan's report is committed before its slot is reserved.
    if lease is not None and lease.state is not SlotState.RESERVED and lease.token != run.token:
        raise _already_confirmed(run)
    resumed = lease and slots.resume(run.id, lease.token, token)
    if resumed is None:
        raise _not_resumed(system, run, lease, origin)
    applying = start_apply(system, run, RunEvent.CONFIRMED, pool, order, confirm_until=None, detail=origin.detail)
    if applying is not None:
        log.info("run confirmed", **applying.about)
    return _decided(applying, run)


def discard(system: System, run_id: str, *, origin: Origin = _UNKNOWN) -> Run:
    """Refuse the plan of a waiting run. Raises :class:`NotWaiting` where the run does not wait for a person."""
    run = _open(get(system, run_id), Verdict.DISCARD)
    return _decided(freed(system, finish.end(system, run, RunEvent.DISCARDED, detail=origin.detail)), run)


def cancel(system: System, run_id: str, *, force: bool = False, origin: Origin = _UNKNOWN) -> Run:
    """End a run: at once while it waits, by one SIGINT to terraform (SIGKILL with ``force``) while it executes.

    A run that executes is over, and its workspace free, only when its agent reports that terraform is gone.
    Raises :class:`IllegalTransition` where the run is over already.
    """
    mode = CancelMode.KILL if force else CancelMode.INTERRUPT
    while True:
        run = _open(get(system, run_id), Verdict.CANCEL)
        if run.status in EXECUTING:
            cancelled = _request_end(system, run, mode, origin)
        else:
            cancelled = freed(system, finish.end(system, run, RunEvent.CANCELLED, detail=origin.detail))
        if cancelled is not None:
            log.info("run cancelled", **cancelled.about, status=cancelled.status.value, mode=mode.value)
            return cancelled


def revoke(system: System, run_id: str, task: str, *, force: bool = False) -> None:
    """Cancel the run with exactly this id, once for ``task``; one that is over stays so. Raises :class:`UnknownRun`."""
    with system.database.read() as session:
        run = runs.get(session, run_id)
    if not run.status.is_over:
        deduplicate(system, run.id, Origin(task), cancel, force=force)


def interrupt(system: System, run: Run, mode: CancelMode, detail: EventDetail | None = None) -> Run | None:
    """End a run whose order is not redeemed yet, else send its agent the cancel; None where the run has changed."""
    outcome = system.slots(run.pool).cancel(run.id, mode)
    if outcome is CancelOutcome.REVOKED:
        return freed(system, finish.end(system, run, RunEvent.CANCELLED, detail=detail))
    if outcome is CancelOutcome.REQUESTED:
        orders.send_cancel(system, run, mode)
    return run


def extend(system: System, run_id: str, *, seconds: float = DEFAULT_EXTENSION, origin: Origin = _UNKNOWN) -> Run:
    """Let the plan of a waiting run wait so much longer for a person.

    Raises :class:`NotWaiting` where the run does not wait for one, and :class:`InvalidRequest` for a time that is none.
    """
    run, now = _open(get(system, run_id), Verdict.EXTEND), system.now()
    until = extended(run.confirm_until or now, now, seconds)
    detail: EventDetail = {**origin.detail, "until": until.isoformat()}
    # The plan waits as it did before: the time since which it does is not touched.
    later = finish.note(
        system, run, RunNote.CONFIRMATION_EXTENDED, expecting={"confirm_until": run.confirm_until}, detail=detail,
        confirm_until=until, remind_at=remind_at(until, timedelta(seconds=seconds)), updated_at=run.updated_at,
    )  # fmt: skip
    if later is not None and later.token:
        system.slots(run.pool).reserve(run.id, later.token, until.timestamp())
        deliver.announce(system, later)  # the state that the caller sees is kept for as long
        log.info("confirmation extended", **later.about, until=until.isoformat())
    return _decided(later, run)


def get(system: System, run_id: str) -> Run:
    """Return a run by its id or a prefix that only it has. Raises :class:`UnknownRun`."""
    with system.database.read() as session:
        return run_queries.find(session, run_id)


def deduplicate(system: System, run_id: str, origin: Origin, decide: Callable[..., Run], **how: Any) -> dict[str, Any]:
    """Let a message decide about a run and return the answer; a second delivery of it gets the first answer.

    ``decide`` is a function of this module, or :func:`workers.services.runs.states.give_up`; raises what that raises.
    The events are read again after a refusal, since two deliveries of one message may be executed at the same moment.
    """
    run, decided = _decision(system, run_id, origin)
    if decided is not None:
        return _answer(run, decided)
    try:
        return result_of(decide(system, run_id, origin=origin, **how))
    except _REFUSALS as error:
        run, decided = _decision(system, run_id, origin)
        if decided is None:
            _enter_refusal(system, run, origin, error)
        elif "refused" not in (decided.detail or {}):
            return _answer(run, decided)
        raise


def _decision(system: System, run_id: str, origin: Origin) -> tuple[Run, RunEventRecord | None]:
    """Return a run and the last of its events that the message has led to, if there is any."""
    with system.database.read() as session:
        run = run_queries.find(session, run_id)
        decided = [
            event for event in run_queries.events(session, run.id) if (event.detail or {}).get("task") == origin.task
        ]
    return run, decided[-1] if decided else None


def _answer(run: Run, decided: RunEventRecord) -> dict[str, Any]:
    detail = decided.detail or {}
    if "refused" in detail:
        refusal = _REFUSALS_BY_NAME[detail["refused"]]
        raise refusal(f"This was refused when it came first: {detail['why'].rstrip('.')}.")
    return {**result_of(run), "status": decided.status.value}


def _enter_refusal(system: System, run: Run, origin: Origin, error: TerraslotError) -> None:
    detail: EventDetail = {**origin.detail, "refused": type(error).__name__, "why": str(error)}
    with system.database.begin() as session:
        runs.remark(session, run, RunNote.REQUEST_REFUSED, now=system.now(), detail=detail)


def _approve(system: System, seen: Run, rules: Approval, origin: Origin) -> Run | None:
    """Enter an approval after which others are missing, and return its run; None where the plan may be applied.

    Under the lock of the workspace's queue, so that of two approvals at the same moment one comes second.
    Raises :class:`ApprovalRefused`.
    """
    with system.database.begin() as session:
        lock_workspace_of(session, seen.id)
        run = _open(_seen(runs.get(session, seen.id), seen.attempt), Verdict.CONFIRM)
        given = run_queries.approved_by(session, run)
        if (refusal := unapproved(rules, run.id, run.actor, given, origin.actor)) is not None:
            raise refusal
        name = origin.actor.name if origin.actor else ""  # rules that are required refuse nobody
        if rules.missing(run.actor, [*given, name]) == 0:
            return None
        detail: EventDetail = {**origin.detail, "attempt": run.attempt}
        runs.remark(session, run, RunNote.APPROVED, now=system.now(), detail=detail)
        log.info("run approved", **run.about, actor=name)
        return run


def _not_resumed(system: System, run: Run, lease: Lease | None, origin: Origin) -> TerraslotError:
    """Return why a run can't go on from ``lease``; where its agent is gone, the run is planned anew."""
    slots = system.slots(run.pool)
    now = slots.find(run.id)
    if lease is not None and now is not None and now.token != lease.token:
        return _already_confirmed(run)
    if now is not None and now.cancel is not None:
        return NotWaiting(f"Run {run.id} is being cancelled.")
    if (silence := _silence(system, run, now)) is not None:
        return AgentSilent(
            f"Run {run.id} can't be confirmed now: the agent {run.agent} that keeps its plan {silence}. Confirm it "
            f"when the agent is heard again, or give it up: `terraslot discard {run.id}`."
        )
    # The refusal is entered with the loss: the same message, delivered again, must not confirm the next plan.
    refused: EventDetail = {**origin.detail, "refused": AgentGone.__name__} if origin.task else {}
    why = f"the agent {run.agent} that kept its plan is gone"
    lost = _decided(finish.requeue_or_fail(system, run, why, may_have_started=False, detail=refused), run)
    again = "so the plan is made anew. Look at the new plan and confirm that"
    ending = f"and the run {lost.status}" if lost.status.is_over else again
    return AgentGone(f"The agent {run.agent} that kept the plan of run {run.id} is gone, {ending}.")


def _silence(system: System, run: Run, lease: Lease | None) -> str | None:
    """Return in words how the agent that keeps a plan is silent; None where it is gone. Silence is not death."""
    slots = system.slots(run.pool)
    now, watched_since = slots.watched()
    if lease is not None:
        agent = slots.agent(lease.agent)
        return f"has not been heard for {now - agent.heartbeat_at:.0f} s" if agent else "is not heard"
    if now - watched_since < (system.now() - run.updated_at).total_seconds():
        # The map is newer than the plan, or was unreachable: the agent may register again. Reconcile decides.
        return "has not registered again since the slot map was lost or unreachable"
    return None


def _request_end(system: System, run: Run, mode: CancelMode, origin: Origin) -> Run | None:
    detail: EventDetail = {"mode": mode.value, **origin.detail}
    requested = finish.note(system, run, RunNote.CANCEL_REQUESTED, detail=detail, cancel_mode=mode)
    if requested is None:
        return None
    return interrupt(system, requested, mode, origin.detail)


def _seen(run: Run, attempt: int | None) -> Run:
    if attempt is not None and attempt != run.attempt:
        raise AgentGone(
            f"The plan of run {run.id} that you saw is gone, of its attempt {attempt}; it is {run.status} in its "
            f"attempt {run.attempt}: look at the new one."
        )
    return run


def _open(run: Run, verdict: Verdict) -> Run:
    if (refusal := untimely(verdict, run.id, run.status)) is not None:
        raise refusal
    return run


def _already_confirmed(run: Run) -> NotWaiting:
    return NotWaiting(f"Run {run.id} is being confirmed by another request already.")


def _decided(updated: Run | None, run: Run) -> Run:
    """Return a run as it was decided. Raises :class:`NotWaiting` where another decision came first."""
    if updated is None:
        raise NotWaiting(f"Run {run.id} was decided by another request at this moment: look at it again.")
    return updated
