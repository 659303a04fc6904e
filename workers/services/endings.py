"""The end of a run, in one order: commit, then free its slot, then deliver its outcome.

Whoever ends a run lets others start in its place: :func:`workers.services.dispatch.dispatch`.
"""

from __future__ import annotations

from typing import Any

from workers.core.runs import FailureReason, RunEvent
from workers.services import delivery
from workers.services.system import System
from workers.store import runs
from workers.store.models import Run


def end(system: System, run: Run, event: RunEvent, **changes: Any) -> Run | None:
    """End a run as it was read; None where somebody else decided its fate first.

    Only for a run of which no process is left, or none was ever started: its workspace is free from here on (F12).
    """
    with system.database.begin() as session:
        ended = runs.record(
            session, run.id, event, expect=run.status, expect_token=run.token, now=system.now(),
            deadline=None, confirm_until=None, **changes,
        )  # fmt: skip
    if ended is None:
        return None
    _release(system, ended)
    delivery.complete(system, ended)
    return ended


def fail(
    system: System, run: Run, error: str, reason: FailureReason = FailureReason.AGENT_ERROR, **changes: Any
) -> Run | None:
    """End a run that can't go on, saying why: as cancelled, where that was asked for. Otherwise like :func:`end`."""
    if run.cancel_mode is not None:
        return end(system, run, RunEvent.CANCELLED, error=error, **changes)
    return end(system, run, RunEvent.FAILED, reason=reason, error=error, **changes)


def _release(system: System, run: Run) -> None:
    slots = system.slots(run.pool)
    if run.token and slots.release(run.id, run.token):
        return
    # A confirmation that was not committed may have changed the token.
    lease = slots.find(run.id)
    if lease is not None:
        slots.release(run.id, lease.token)
