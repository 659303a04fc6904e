"""Reports that can't be taken: not understood, or met by the same fault every time. None keeps its slot for ever.

An agent repeats the end of a phase until the slot map shows that it was taken. One that can't be is entered among the
run's events first: while versions change, another worker may take it. Where it still comes after ``PATIENCE``, the
run fails with the reason, and its slot is free: who tells of the end tells that no process is left. Of what is not
even known to be an end, and of what never arrives, the last word is :func:`end_unreported`.

A message without the token of its run changes nothing, and none does while a server is away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import structlog
from pydantic import ValidationError

from workers.core.errors import UnknownRun
from workers.core.messages import REPORT
from workers.core.pools import PoolSpec
from workers.core.reconcile import HEARD, OVERTIME
from workers.core.runs import EXECUTING, FailureReason, Phase, RunEvent, RunStatus
from workers.core.slots import CancelMode, Lease
from workers.core.terminal import CONTROLS
from workers.services.faults import explained, is_transient
from workers.services.reports import take
from workers.services.runs import end
from workers.services.system import System
from workers.store import runs
from workers.store.models import Run, RunEventRecord

log = structlog.get_logger(__name__)

NOT_TAKEN = "report not taken"
NOT_REPORTED = "end not reported"
PATIENCE = timedelta(seconds=120)
_MAX_WORDS = 500
_ADVICE = (
    "Agents and control plane of different versions are the likely cause: bring them to the same one. What Terraform "
    "has done is in its state and in the run's log; plan again."
)


def receive(system: System, payload: object) -> None:
    """Take what arrived as a report. Raises where a server is away: the agent repeats what counts."""
    try:
        take(system, REPORT.validate_python(payload))
    except UnknownRun as error:
        log.warning("report dropped", error=str(error))
    except Exception as error:
        if is_transient(error):
            raise
        _not_taken(system, payload, error)


def end_unreported(system: System, spec: PoolSpec, holding: Iterable[Run]) -> None:
    """Fail runs whose time is long over, and whose agent lives, was told to kill them, and gives no end that counts."""
    late = timedelta(seconds=spec.timeouts.interrupt + 2 * OVERTIME)
    for run in holding:
        if run.status in EXECUTING and run.deadline is not None and system.now() > run.deadline + late:
            _end_unreported(system, run)


def _not_taken(system: System, payload: object, error: Exception) -> None:
    words = re.sub(f"[{CONTROLS}\n]", "\ufffd", explained(error))[:_MAX_WORDS]
    fields = payload if isinstance(payload, dict) else {}
    run = _run(system, fields)
    if run is None:
        log.warning("report dropped", error=words)
        return
    # What does not fit is said in words that hold no values; a fault of this program is told in full.
    trace = None if isinstance(error, ValidationError) else error
    log.warning("report not taken", run=run.id, agent=run.agent, why=words, exc_info=trace)
    waited = _waited(system, run, NOT_TAKEN, words)
    if fields.get("type") == "phase_finished" and waited > PATIENCE:
        told = f"The agent {run.agent} has reported the end of the {_phase(run)}{_outcome(fields)}"
        _fail(system, run, f"{told}, but that report can't be taken: {words}", FailureReason.AGENT_ERROR)


def _run(system: System, fields: dict[Any, Any]) -> Run | None:
    """Return the run that a message is about, if it has the token of what the run executes now."""
    run_id, token = fields.get("run"), fields.get("token")
    if not isinstance(run_id, str) or not isinstance(token, str):
        return None
    try:
        with system.database.read() as session:
            run = runs.get(session, run_id)
    except UnknownRun:
        return None
    return run if run.token == token and run.status in EXECUTING else None


def _end_unreported(system: System, run: Run) -> None:
    lease = system.slots(run.pool).find(run.id)
    if lease is None or lease.token != run.token or not _was_told(system, run, lease):
        return
    waited = _waited(system, run, NOT_REPORTED, "its time is over, and its agent was told to kill it")
    if waited > timedelta(seconds=OVERTIME):
        told = f"The {_phase(run)} took longer than it may, its agent {run.agent} was told to kill it"
        sentence = f"{told}, and no end of it was reported that could be taken{_last_words(system, run)}"
        _fail(system, run, sentence, FailureReason.TIMED_OUT)


def _was_told(system: System, run: Run, lease: Lease) -> bool:
    """Whether the agent is heard, so that it knows of the kill. Of one that is silent, the pod's end tells."""
    slots = system.slots(run.pool)
    agent = slots.agent(lease.agent)
    heard = agent is not None and slots.watched()[0] - agent.heartbeat_at < HEARD
    return heard and lease.cancel is CancelMode.KILL and lease.lost_since is None


def _waited(system: System, run: Run, what: str, why: str) -> timedelta:
    """Return since when the run's events say ``what`` of this phase; say it, if they don't."""
    now = system.now()
    with system.database.read() as session:
        said = [event.at for event in runs.events(session, run.id) if _is_about(run, event, what)]
    if said:
        return now - said[0]
    with system.database.begin() as session:
        detail = {"attempt": run.attempt, "why": why}
        runs.note(session, run.id, what, expect=run.status, expect_token=run.token, now=now, detail=detail)
    return timedelta()


def _last_words(system: System, run: Run) -> str:
    """Return why reports of this phase were not taken, if any came."""
    with system.database.read() as session:
        said = [event.detail for event in runs.events(session, run.id) if _is_about(run, event, NOT_TAKEN)]
    return f": {said[-1]['why']}" if said and said[-1] else "."


def _is_about(run: Run, event: RunEventRecord, what: str) -> bool:
    attempt = (event.detail or {}).get("attempt")
    return event.event == what and event.status is run.status and attempt == run.attempt


def _fail(system: System, run: Run, sentence: str, reason: FailureReason) -> None:
    error = f"{sentence} {_ADVICE}"
    if run.cancel_mode is None:
        end(system, run, RunEvent.FAILED, reason=reason, error=error)
    else:
        end(system, run, RunEvent.CANCELLED, error=error)


def _phase(run: Run) -> Phase:
    return Phase.PLAN if run.status is RunStatus.PLANNING else Phase.APPLY


def _outcome(fields: dict[Any, Any]) -> str:
    said = fields.get("outcome")
    return f" as {said}" if said in ("succeeded", "failed", "cancelled") else ""
