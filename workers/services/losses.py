"""What becomes of a run whose agent, lease or order is gone."""

from __future__ import annotations

from typing import Any

import structlog

from workers.core.runs import FailureReason, RunEvent, after_agent_lost
from workers.services import delivery
from workers.services.system import System
from workers.store import pools, runs
from workers.store.models import Run

log = structlog.get_logger(__name__)


def lose(system: System, run: Run, why: str, *, may_have_started: bool, **detail: Any) -> Run | None:
    """Plan a run anew, or fail it, after it lost its slot; None where somebody else decided its fate first.

    An apply that may have started fails as ``agent_lost`` and is never repeated by itself. A run whose cancel was
    asked for is cancelled. ``detail`` is entered with the event.
    """
    with system.database.begin() as session:
        spec = pools.get(session, run.pool)
        event = after_agent_lost(
            run.status, may_have_applied=may_have_started, attempt=run.attempt, attempts=spec.attempts
        )
        if run.cancel_mode is not None:
            event = RunEvent.CANCELLED
        changes: dict[str, Any] = {"started_at": None, "deadline": None, "confirm_until": None}
        if event is RunEvent.AGENT_LOST:
            changes |= {"agent": None, "slot": None, "token": None}
        elif event is RunEvent.FAILED:
            changes |= {"reason": FailureReason.AGENT_LOST, "error": _explanation(run, why)}
        updated = runs.record(
            session, run.id, event, expect=run.status, expect_token=run.token, now=system.now(),
            detail={"why": why, **detail}, **changes,
        )  # fmt: skip
    if updated is None:
        return None
    log.warning("run lost its agent", run=run.id, why=why, status=updated.status.value, attempt=run.attempt)
    if updated.status.is_over:
        delivery.complete(system, updated)
    else:
        delivery.announce(system, updated)
    return updated


def _explanation(run: Run, why: str) -> str:
    return (
        f"Run {run.id} was {run.status} when it was lost: {why}. "
        "What Terraform had done by then is in its state or, if the state could not be written, lost: "
        "look at the log, plan again, and unlock the state only if its lock names this agent."
    )
