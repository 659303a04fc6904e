"""A run ends, or loses its agent: commit, then release its slot, then deliver its outcome.

The caller gives the freed slot on: :func:`workers.services.runs.wake.freed`.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog

from workers import metrics, traces
from workers.core.lifecycle import EXECUTING, EventDetail, RunEvent, RunNote, RunStatus, after_agent_lost
from workers.core.pools import PoolPolicy
from workers.protocol.kinds import FailureReason
from workers.services.errors import isolate
from workers.services.runs import deliver
from workers.services.runs.progress import said_last
from workers.services.system import System
from workers.slots.connection import run_together
from workers.store import runs
from workers.store.database import Session
from workers.store.models import Run

log = structlog.get_logger(__name__)


def end(system: System, run: Run, event: RunEvent, **changes: Any) -> Run | None:
    """End a run as it was read; None where it has changed since: the other decision stands.

    Only for a run without processes: its workspace is free from here on (F12).
    """
    with system.database.begin() as session:
        ended = enter_end(session, run, event, system.now(), **changes)
    if ended is not None:
        settle(system, [ended])
    return ended


def enter_end(session: Session, run: Run, event: RunEvent, now: datetime, **changes: Any) -> Run | None:
    """End a run like :func:`end`, in this transaction; :func:`settle` is for after its commit."""
    return runs.record(
        session, run.id, event, expect=run.status, expect_token=run.token, now=now, deadline=None, confirm_until=None,
        **deliver.claims(run, now), **changes,
    )  # fmt: skip


def settle(system: System, ended: Sequence[Run]) -> None:
    """Release the slots of runs that have ended, and deliver their outcomes. Raises an outage."""
    steps = [system.slots(run.pool).release_step(run.id, run.token or "") for run in ended]
    outcomes = {run.id: step for run in ended if (step := deliver.result_step(system, run)) is not None}
    replies = run_together(system.redis, [*steps, *outcomes.values()])
    for run, released in zip(ended, replies, strict=False):
        with isolate("slot not released", **run.about):
            if released != 1:
                _release_what_it_holds(system, run)
    stored = [run for run, reply in zip(outcomes, replies[len(ended) :], strict=True) if reply == 1]
    deliver.complete(system, ended, stored)


def fail(
    system: System, run: Run, error: str, reason: FailureReason = FailureReason.AGENT_ERROR, **changes: Any
) -> Run | None:
    """End a run that can't go on as failed, or as cancelled where that was requested. Otherwise like :func:`end`."""
    if run.cancel_mode is not None:
        return end(system, run, RunEvent.CANCELLED, error=error, **changes)
    return end(system, run, RunEvent.FAILED, reason=reason, error=error, **changes)


def requeue_or_fail(
    system: System, run: Run, why: str, *, may_have_started: bool, detail: EventDetail | None = None
) -> Run | None:
    """Plan a run anew, or fail it, after it lost its slot; None where it has changed since it was read.

    An apply that may have started fails as ``agent_lost`` and is never repeated by itself. A run whose cancel was
    requested is cancelled. ``detail`` is entered with the event.
    """
    attempts = system.pool(run.pool).attempts
    event = RunEvent.CANCELLED
    if run.cancel_mode is None:
        event = after_agent_lost(run.status, may_have_applied=may_have_started, attempt=run.attempt, attempts=attempts)
    changes: dict[str, Any] = {"started_at": None, "deadline": None, "confirm_until": None}
    if event is RunEvent.AGENT_LOST:
        changes |= {"agent": None, "slot": None, "token": None}
    elif event is RunEvent.FAILED:
        changes |= {"reason": FailureReason.AGENT_LOST, "error": _explanation(run, why)}
    if run.status is RunStatus.APPLYING and event is not RunEvent.AGENT_LOST:
        changes["progress"] = said_last(system, run)
    updated = record(system, run, event, detail={"why": why, **(detail or {})}, **changes)
    if updated is None:
        return None
    log.warning("run lost its agent", **run.about, why=why, status=updated.status.value)
    if phase := EXECUTING.get(run.status):
        traces.draw(phase.value, run, run.started_at, updated.updated_at, error="agent lost")
    if updated.status.is_over:
        deliver.complete(system, [updated])
    else:
        metrics.REQUEUED.add(run.pool)
        deliver.announce(system, updated)
    return updated


def record(system: System, run: Run, event: RunEvent, **changes: Any) -> Run | None:
    """Write ``event`` in its own transaction, expecting the run as it was read; None where it has changed since."""
    with system.database.begin() as session:
        now = system.now()
        return runs.record(session, run.id, event, expect=run.status, expect_token=run.token, now=now, **changes)


def note(system: System, run: Run, note: RunNote, **changes: Any) -> Run | None:
    """Enter ``note`` in its own transaction, expecting the run as it was read; None where it has changed since."""
    with system.database.begin() as session:
        now = system.now()
        return runs.note(session, run.id, note, expect=run.status, expect_token=run.token, now=now, **changes)


def deadline(now: datetime, pool: PoolPolicy, seconds: float) -> datetime:
    """Return when a phase that is ordered now, and may take so long, has to be over."""
    return now + timedelta(seconds=pool.timeouts.redeem + seconds)


def _explanation(run: Run, why: str) -> str:
    return (
        f"Run {run.id} was {run.status} when it was lost: {why}. "
        "What Terraform had done by then is in its state or, if the state could not be written, lost: "
        "look at the log, plan again, and unlock the state only if its lock names this agent."
    )


def _release_what_it_holds(system: System, run: Run) -> None:
    # A confirmation that was not committed may have changed the token.
    slots = system.slots(run.pool)
    if (lease := slots.find(run.id)) is not None:
        slots.release(run.id, lease.token)
