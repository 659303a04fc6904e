"""What people and programs decide about a run: confirm it, discard it, cancel it."""

from __future__ import annotations

import structlog

from workers.core.errors import AgentGone, AgentSilent, IllegalTransition, NotWaiting
from workers.core.lifecycle import EXECUTING, RunEvent, RunStatus
from workers.protocol.errors import TerraslotError
from workers.protocol.kinds import Phase
from workers.protocol.leases import APPLY_SLOT, CancelMode, CancelOutcome, Lease, SlotState
from workers.services.runs import deliver, finish, orders
from workers.services.runs.deduplicate import REFUSED, TASK
from workers.services.runs.dispatch import freed
from workers.services.system import System
from workers.slots.slot_map import SlotMap
from workers.store import pools, runs
from workers.store.models import Run

log = structlog.get_logger(__name__)


def confirm(system: System, run_id: str, *, attempt: int | None = None, task: str | None = None) -> Run:
    """Let the plan of a waiting run be applied, by the agent that made it. ``task``: the message that asks for it.

    ``attempt``: the one whose plan was looked at, so that no other is applied. Raises :class:`NotWaiting` where the
    run waits for nobody, :class:`AgentSilent` while the agent that keeps the plan is not heard, and
    :class:`AgentGone` where that plan is gone with its agent: the run is then planned anew, and its new plan wants a
    confirmation of its own. A run whose apply can't be ordered for what its workspace says is returned as failed.
    """
    token, why = orders.new_token(), None
    with system.database.read() as session:
        run = _waiting(_seen(runs.find(session, run_id), attempt), "confirmed")
        pool = pools.get(session, run.pool)
        try:
            order = orders.make(system, session, run, Phase.APPLY, pool, slot=APPLY_SLOT, token=token)
        except orders.NotMade as error:
            why = str(error)
    if why is not None:
        return _decided(freed(system, finish.fail(system, run, why, detail=_asked_by(task))), run)
    slots = system.slots(run.pool)
    lease = slots.find(run.id)
    # It may be running still, for a moment: the plan's report is committed before its slot is reserved.
    if lease is not None and lease.state is not SlotState.RESERVED and lease.token != run.token:
        raise NotWaiting(f"Run {run.id} is being confirmed by somebody else already.")
    resumed = lease and slots.resume(run.id, lease.token, token)
    if resumed is None:
        raise _not_resumed(system, run, lease, task)
    updated = finish.record(
        system, run, RunEvent.CONFIRMED, token=token, started_at=None, confirm_until=None,
        deadline=finish.apply_deadline(system.now(), pool), detail=_asked_by(task),
    )  # fmt: skip
    if updated is None:
        slots.release(run.id, token)
    confirmed = _decided(updated, run)
    deliver.announce(system, confirmed)
    orders.send(system, confirmed, order)
    log.info("run confirmed", run=run.id, agent=resumed.agent, slot=resumed.slot)
    return confirmed


def discard(system: System, run_id: str, *, task: str | None = None) -> Run:
    """Refuse the plan of a waiting run. Raises :class:`NotWaiting` where it waits for nobody."""
    run = _waiting(get(system, run_id), "discarded")
    return _decided(freed(system, finish.end(system, run, RunEvent.DISCARDED, detail=_asked_by(task))), run)


def cancel(system: System, run_id: str, *, force: bool = False, task: str | None = None) -> Run:
    """End a run: at once while it waits, by one SIGINT to terraform (SIGKILL with ``force``) while it executes.

    A run that executes is over, and its workspace free, only when its agent reports that terraform is gone.
    Raises :class:`IllegalTransition` where the run is over already.
    """
    mode = CancelMode.KILL if force else CancelMode.INTERRUPT
    while True:
        run = get(system, run_id)
        if run.status.is_over:
            raise IllegalTransition(f"Run {run.id} is over already: it {run.status}.")
        if run.status in EXECUTING:
            asked = _interrupt(system, run, mode, task)
        else:
            asked = freed(system, finish.end(system, run, RunEvent.CANCELLED, detail=_asked_by(task)))
        if asked is not None:
            log.info("run cancel", run=run.id, status=asked.status.value, mode=mode.value)
            return asked


def get(system: System, run_id: str) -> Run:
    """Return a run by its id or a prefix that only it has. Raises :class:`UnknownRun`."""
    with system.database.read() as session:
        return runs.find(session, run_id)


def _asked_by(task: str | None) -> dict[str, str] | None:
    return None if task is None else {TASK: task}


def _not_resumed(system: System, run: Run, lease: Lease | None, task: str | None) -> TerraslotError:
    """Return why a run can't go on from ``lease``; where nobody else has decided about it, it is planned anew."""
    slots = system.slots(run.pool)
    now = slots.find(run.id)
    if lease is not None and now is not None and now.token != lease.token:
        return NotWaiting(f"Run {run.id} is being confirmed by somebody else already.")
    if now is not None and now.cancel is not None:
        return NotWaiting(f"Run {run.id} is being cancelled.")
    if (silence := _silence(slots, run, now)) is not None:
        return AgentSilent(
            f"Run {run.id} can't be confirmed now: the agent {run.agent} that keeps its plan {silence}. Confirm it "
            f"when the agent is heard again, or give it up: `terraslot discard {run.id}`."
        )
    # A message that comes again must not confirm the next plan: with what it has led to, what it is answered is kept.
    refused = {TASK: task, REFUSED: AgentGone.__name__} if task else {}
    why = f"the agent {run.agent} that kept its plan is gone"
    lost = _decided(finish.requeue_or_fail(system, run, why, may_have_started=False, **refused), run)
    again = "so the plan is made anew. Look at the new plan and confirm that"
    ending = f"and the run {lost.status}" if lost.status.is_over else again
    return AgentGone(f"The agent {run.agent} that kept the plan of run {run.id} is gone, {ending}.")


def _silence(slots: SlotMap, run: Run, lease: Lease | None) -> str | None:
    """Return in words how the agent that keeps a plan is silent; None where it is gone. Silence is not death."""
    now, watched_since = slots.watched()
    if lease is not None:
        agent = slots.agent(lease.agent)
        return f"has not been heard for {now - agent.heartbeat_at:.0f} s" if agent else "is not heard"
    if watched_since > run.updated_at.timestamp():
        # The map is newer than the plan, or was out of sight: whether the agent brings it back, reconcile will see.
        return "has not registered again since the slot map was lost or out of sight"
    return None


def _interrupt(system: System, run: Run, mode: CancelMode, task: str | None) -> Run | None:
    """Ask for the end of an executing run; None where it has gone on meanwhile."""
    with system.database.begin() as session:
        asked = runs.note(
            session, run.id, "cancel requested", expect=run.status, expect_token=run.token, now=system.now(),
            detail={"mode": mode.value, **(_asked_by(task) or {})}, cancel_mode=mode,
        )  # fmt: skip
    if asked is None:
        return None
    outcome = system.slots(run.pool).cancel(run.id, mode)
    if outcome is CancelOutcome.REVOKED:
        return freed(system, finish.end(system, asked, RunEvent.CANCELLED, detail=_asked_by(task)))
    if outcome is CancelOutcome.REQUESTED:
        orders.send_cancel(system, asked, mode)
    return asked


def _seen(run: Run, attempt: int | None) -> Run:
    """Return a run whose plan is the one that was looked at. Raises :class:`AgentGone` where that is gone."""
    if attempt is not None and attempt != run.attempt:
        raise AgentGone(
            f"The plan of run {run.id} that you saw is gone, of its attempt {attempt}; it is {run.status} in its "
            f"attempt {run.attempt}: look at the new one."
        )
    return run


def _waiting(run: Run, verb: str) -> Run:
    """Return a run that waits for a person. Raises :class:`NotWaiting` for another."""
    if run.status is not RunStatus.APPLY_PENDING:
        raise NotWaiting(f"Run {run.id} can't be {verb}: it is {run.status}, not waiting for a confirmation.")
    return run


def _decided(updated: Run | None, run: Run) -> Run:
    """Return a run as it was decided about. Raises :class:`NotWaiting` where somebody else was first."""
    if updated is None:
        raise NotWaiting(f"Run {run.id} was decided by somebody else at this moment: look at it again.")
    return updated
