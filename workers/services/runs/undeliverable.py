"""Reports that can't be taken, and ends that are never reported: no run keeps its slot for ever.

An agent repeats the end of a phase until the slot map shows that it was taken. A rejected one is entered among the
run's events first: while versions change, another worker may take it. Where it is still rejected after ``PATIENCE``,
the run fails and says why. That frees its slot safely: an agent reports an end when no process is left.

A message without the token of its run changes nothing, and nothing changes while a server is away.
"""

import json
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import structlog
from pydantic import ValidationError

from workers import metrics
from workers.core.errors import UnknownRun
from workers.core.lifecycle import EXECUTING, EventDetail, RunNote
from workers.core.reconcile import KILL_GRACE, RECENT_HEARTBEAT
from workers.protocol.errors import InvalidRequest, TerraslotError
from workers.protocol.kinds import FailureReason
from workers.protocol.leases import CancelMode
from workers.protocol.messages import REPORT
from workers.protocol.names import RUN_ID, one_line
from workers.services.errors import explained, is_outage, isolate
from workers.services.runs import finish
from workers.services.runs.report import PhaseReport, take, take_all
from workers.services.runs.wake import freed
from workers.services.system import System
from workers.slots.locks import renew_lock
from workers.slots.report_queue import LONGEST, Found
from workers.specs.pools import PoolSpec
from workers.store import run_queries, runs
from workers.store.models import Run, RunEventRecord

log = structlog.get_logger(__name__)

# While versions change, a worker of another version takes the repeated report well within this time.
PATIENCE = timedelta(seconds=120)
_LONGEST_REASON = 500  # characters: it holds names that the agent chose
_HEAD = 2_000  # bytes: type, pool, agent, run and token of a report have at most 800
_ADVICE = (
    "Agents and control plane of different versions are the likely cause: bring them to the same one. What Terraform "
    "has done is in its state and in the run's log; plan again."
)


class TooLong(TerraslotError):
    """A report is longer than what an agent sends."""


def receive_together(system: System, found: Sequence[Found]) -> list[Found]:
    """Take the reports of phases among what was found in the queue of a pool: in one transaction, and one round trip.

    Returns what is to be taken one by one: all other reports, and those of phases too where that raised, so that a bad
    one stops no other.
    """
    phases = {number: report for number, each in enumerate(found) if (report := _phase_report(each)) is not None}
    try:
        take_all(system, list(phases.values()))
    except Exception as error:  # noqa: BLE001 - each of them meets it again, or does not
        log.warning("reports are taken one by one", pool=found[0].pool, reports=len(phases), error=explained(error))
        return list(found)
    return [each for number, each in enumerate(found) if number not in phases]


def _phase_report(found: Found) -> PhaseReport | None:
    """Return a report of a phase; None for any other, and for one that :func:`receive` has to reject."""
    with suppress(InvalidRequest, ValidationError):
        if found.length <= LONGEST:
            report = REPORT.validate_python(_fields(found))
            return report if isinstance(report, PhaseReport) else None
    return None


def receive(system: System, found: Found) -> None:
    """Take what was found in a queue as a report. Raises where a server is away: the agent repeats what counts."""
    fields: dict[str, Any] = {}
    try:
        if found.length > LONGEST:
            too_long = TooLong(f"it has {found.length:,} bytes, and {LONGEST:,} at most are read")
            _reject(system, _beginning(found.content), too_long)
        else:
            fields = _fields(found)
            take(system, REPORT.validate_python(fields), left=found.left)
    except UnknownRun as error:
        log.warning("report dropped", error=str(error))
    except Exception as error:
        if is_outage(error):
            raise
        _reject(system, fields, error)


def _fields(found: Found) -> dict[str, Any]:
    try:
        fields = json.loads(found.content)
    except (ValueError, RecursionError):
        raise InvalidRequest("it is not JSON") from None
    if not isinstance(fields, dict) or (found.pool and fields.get("pool") != found.pool):
        raise InvalidRequest("it is not a report about its pool")
    return fields


def _beginning(content: bytes) -> dict[str, Any]:
    """Return what the beginning of a report says of its run: that stands before what may be long."""
    pairs = re.findall(rb'"(type|run|token|outcome)": ?"([\x21\x23-\x5b\x5d-\x7e]{1,128})"', content[:_HEAD])
    return {name.decode(): value.decode() for name, value in reversed(pairs)}


def end_unreported(system: System, spec: PoolSpec, holding: Iterable[Run]) -> None:
    """Fail runs whose time is long over, and whose living agent was told to kill them and reports no valid end."""
    late = timedelta(seconds=spec.timeouts.interrupt + KILL_GRACE)
    for run in holding:
        if run.status in EXECUTING and run.deadline is not None and system.now() > run.deadline + late:
            renew_lock()
            with isolate("unreported end not looked for", **run.about):
                _end_unreported(system, run.id)


def _reject(system: System, fields: dict[Any, Any], error: Exception) -> None:
    why = one_line(explained(error))[:_LONGEST_REASON]
    run = _executing(system, fields)
    if run is None:
        log.warning("report dropped", error=why)
        return
    metrics.REJECTED.add(run.pool)
    # A traceback for a fault of this program; an invalid report is explained, without its values.
    log.warning("report rejected", **run.about, why=why, exc_info=None if isinstance(error, ValidationError) else error)
    rejected_for = _time_since(system, run, RunNote.REPORT_REJECTED, why)
    final = isinstance(error, TooLong) or rejected_for > PATIENCE  # no other version takes a report that is too long
    if fields.get("type") == "phase_finished" and final:
        outcome = fields.get("outcome")
        known = f" as {outcome}" if outcome in ("succeeded", "failed", "cancelled") else ""
        end = f"The agent {run.agent} has reported the end of the {EXECUTING[run.status]}{known}"
        _fail(system, run, f"{end}, but that report can't be taken: {why}", FailureReason.AGENT_ERROR)


def _executing(system: System, fields: dict[Any, Any]) -> Run | None:
    """Return the run that a message is about, if it has the token of what the run executes now."""
    run_id, token = fields.get("run"), fields.get("token")
    # No database takes every text: half of a surrogate pair has no encoding, and PostgreSQL refuses a NUL.
    if not isinstance(run_id, str) or not RUN_ID.fullmatch(run_id) or not isinstance(token, str):
        return None
    try:
        with system.database.read() as session:
            run = runs.get(session, run_id)
    except UnknownRun:
        return None
    return run if run.token == token and run.status in EXECUTING else None


def _end_unreported(system: System, run_id: str) -> None:
    with system.database.read() as session:
        run = runs.get(session, run_id)  # it may have ended since, or its cancel may have been requested
    if run.status not in EXECUTING or not _knows_of_kill(system, run):
        return
    why = "its time is over, and its agent was told to kill it"
    if _time_since(system, run, RunNote.END_NOT_REPORTED, why) > timedelta(seconds=KILL_GRACE):
        rejected = _note(system, run, RunNote.REPORT_REJECTED)
        reason = f": {rejected.detail['why']}" if rejected is not None and rejected.detail else "."
        late = f"The {EXECUTING[run.status]} took longer than it may, its agent {run.agent} was told to kill it"
        _fail(system, run, f"{late}, and no valid report of its end arrived{reason}", FailureReason.TIMED_OUT)


def _knows_of_kill(system: System, run: Run) -> bool:
    """Whether the agent was heard since the kill was requested. A silent agent's runs end with its pod.

    The slot map keeps no time of the request: it was made by the time at which it was first seen here.
    """
    slots = system.slots(run.pool)
    lease, agent = slots.find(run.id), slots.agent(run.agent or "")
    if lease is None or agent is None or lease.token != run.token or lease.lost_since is not None:
        return False
    unheard = slots.watched()[0] - agent.heartbeat_at
    if lease.cancel is not CancelMode.KILL or unheard >= RECENT_HEARTBEAT:
        return False
    return timedelta(seconds=unheard) < _time_since(system, run, RunNote.KILL_REQUESTED, "its time is over")


def _time_since(system: System, run: Run, note: RunNote, why: str) -> timedelta:
    """Return how long ago a note about this phase was entered; enter it where there is none yet."""
    if (entered := _note(system, run, note)) is not None:
        return system.now() - entered.at
    finish.note(system, run, note, detail=EventDetail(attempt=run.attempt, why=why))
    return timedelta()


def _note(system: System, run: Run, note: RunNote) -> RunEventRecord | None:
    with system.database.read() as session:
        events = run_queries.events(session, run.id)
    of_phase = (each for each in events if (each.detail or {}).get("attempt") == run.attempt)
    return next((each for each in of_phase if (each.event, each.status) == (note, run.status)), None)


def _fail(system: System, run: Run, sentence: str, reason: FailureReason) -> None:
    freed(system, finish.fail(system, run, f"{sentence} {_ADVICE}", reason=reason))
