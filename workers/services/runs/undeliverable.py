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
from workers.core.lifecycle import EXECUTING, RunStatus
from workers.core.reconcile import KILL_GRACE, RECENT_HEARTBEAT
from workers.protocol.kinds import FailureReason, Phase
from workers.protocol.leases import CancelMode
from workers.protocol.messages import REPORT
from workers.protocol.text import CONTROLS
from workers.services.errors import explained, is_outage, isolate
from workers.services.runs.dispatch import freed
from workers.services.runs.finish import fail
from workers.services.runs.report import take
from workers.services.system import System
from workers.slots.locks import renew_lock
from workers.specs.pools import PoolSpec
from workers.store import runs
from workers.store.models import Run, RunEventRecord

log = structlog.get_logger(__name__)

NOT_TAKEN = "report not taken"
TO_BE_KILLED = "to be killed"
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
        if is_outage(error):
            raise
        _not_taken(system, payload, error)


def end_unreported(system: System, spec: PoolSpec, holding: Iterable[Run]) -> None:
    """Fail runs whose time is long over, and whose agent lives, was told to kill them, and gives no end that counts."""
    late = timedelta(seconds=spec.timeouts.interrupt + KILL_GRACE)
    for run in holding:
        if run.status in EXECUTING and run.deadline is not None and system.now() > run.deadline + late:
            renew_lock()
            with isolate("end not looked for", run=run.id, pool=spec.name):
                _end_unreported(system, run.id)


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


def _end_unreported(system: System, run_id: str) -> None:
    with system.database.read() as session:
        run = runs.get(session, run_id)  # as it is by now: ended, or its cancel asked for
    if run.status not in EXECUTING or not _was_told(system, run):
        return
    waited = _waited(system, run, NOT_REPORTED, "its time is over, and its agent was told to kill it")
    if waited > timedelta(seconds=KILL_GRACE):
        told = f"The {_phase(run)} took longer than it may, its agent {run.agent} was told to kill it"
        sentence = f"{told}, and no end of it was reported that could be taken{_last_words(system, run)}"
        _fail(system, run, sentence, FailureReason.TIMED_OUT)


def _was_told(system: System, run: Run) -> bool:
    """Whether the agent was heard since a kill was marked, so that it knows. Of a silent one, the pod's end tells.

    When it was marked, nobody has kept: it was by the time at which it was first seen here.
    """
    slots = system.slots(run.pool)
    lease, agent = slots.find(run.id), slots.agent(run.agent or "")
    if lease is None or agent is None or lease.token != run.token or lease.lost_since is not None:
        return False
    unheard = slots.watched()[0] - agent.heartbeat_at
    if lease.cancel is not CancelMode.KILL or unheard >= RECENT_HEARTBEAT:
        return False
    return timedelta(seconds=unheard) < _waited(system, run, TO_BE_KILLED, "its time is over")


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
    freed(system, fail(system, run, f"{sentence} {_ADVICE}", reason=reason))


def _phase(run: Run) -> Phase:
    return Phase.PLAN if run.status is RunStatus.PLANNING else Phase.APPLY


def _outcome(fields: dict[Any, Any]) -> str:
    said = fields.get("outcome")
    return f" as {said}" if said in ("succeeded", "failed", "cancelled") else ""
