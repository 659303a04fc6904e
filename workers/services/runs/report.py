"""Take reports of agents: a phase started, a phase ended, an agent registered or stopped.

A report counts only with the token of its run (or an agent's instance id), and may arrive twice: the agent repeats
it until the slot map shows that it was taken. Everything here is therefore safe twice, and a late report of a run
that went on without it changes nothing (F11, F26).
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, assert_never

import structlog

from workers.core.confirmation import remind_at
from workers.core.lifecycle import EXECUTING, EventDetail, RunEvent, RunNote, RunStatus
from workers.protocol import names
from workers.protocol.kinds import FailureReason, Phase, RunKind
from workers.protocol.leases import Lease
from workers.protocol.messages import AgentRegistered, AgentStopped, PhaseFinished, PhaseStarted, Report
from workers.protocol.version import OLDEST_AGENT
from workers.services.errors import isolate
from workers.services.pool_state import note_programs
from workers.services.runs import deliver
from workers.services.runs.finish import end, requeue_or_fail
from workers.services.runs.wake import freed, request_cold_start, request_dispatch
from workers.services.system import System
from workers.slots import order_queue
from workers.store import pools, runs, workspaces
from workers.store.models import Run

log = structlog.get_logger(__name__)

_STARTED = {
    Phase.PLAN: (RunStatus.PLANNING, RunNote.PLAN_STARTED),
    Phase.APPLY: (RunStatus.APPLYING, RunNote.APPLY_STARTED),
}


def take(system: System, report: Report) -> None:
    """Take a report of an agent."""
    match report:
        case AgentRegistered():
            _agent_registered(system, report)
        case AgentStopped():
            agent_gone(system, report.pool, report.agent, report.instance_id, "it stopped")
        case PhaseStarted():
            _phase_started(system, report)
        case PhaseFinished():
            _phase_finished(system, report)
        case _:
            assert_never(report)


def _agent_registered(system: System, report: AgentRegistered) -> None:
    slots = system.slots(report.pool)
    record = slots.agent(report.agent)
    protocol = record.protocol if record else None
    log.info("agent registered", pool=report.pool, agent=report.agent, protocol=protocol)
    if protocol is not None and protocol < OLDEST_AGENT:
        slots.drain(report.agent)  # the next cycle says so, and replaces its pod
    if record is not None:
        note_programs(system, report.pool, lambda known: known.with_those_of(record))
    request_dispatch(system, report.pool)


def agent_gone(system: System, pool: str, agent: str, instance_id: str, why: str) -> None:
    """Requeue or fail the runs of an agent that is known to be gone, and deregister it."""
    slots = system.slots(pool)
    settled: dict[str, str] = {}
    # Commit, then release: only the lease tells that an apply never started, and a process that is killed here leaves
    # it in place for the next. Others may be taken meanwhile.
    while held := slots.deregister(agent, instance_id, settled=settled):
        _requeue_or_fail_all(system, held, f"its agent {agent} is gone ({why})")
        settled |= {lease.token: lease.run for lease in held}
    order_queue.remove(system.broker, pool, agent)
    log.info("agent deregistered", pool=pool, agent=agent, why=why, leases=list(settled.values()))
    request_dispatch(system, pool)
    request_cold_start(system, pool)


def _requeue_or_fail_all(system: System, leases: Iterable[Lease], why: str) -> None:
    for lease in leases:
        with isolate("run of a lost agent not requeued", run=lease.run, agent=lease.agent):
            with system.database.read() as session:
                run = runs.get(session, lease.run)
            if run.token == lease.token and run.status.holds_slot:
                # Redis may have lost in a crash that the token was redeemed; the database was told.
                requeue_or_fail(system, run, why, may_have_started=lease.redeemed or run.started_at is not None)


def _phase_started(system: System, report: PhaseStarted) -> None:
    """Enter the start once. The agent reports again when it knows the commit, and any report may arrive twice."""
    now = system.now()
    status, note = _STARTED[report.phase]
    expected: dict[str, Any] = {"expect": status, "expect_token": report.token, "now": now}
    resolved: dict[str, Any] = {"commit": report.commit} if report.commit else {}
    program: dict[str, Any] = {"program": report.program} if report.program else {}
    detail: EventDetail = {"agent": report.agent, "commit": report.commit}
    with system.database.begin() as session:
        started = runs.note(
            session,
            report.run,
            note,
            **expected,
            expecting={"started_at": None},
            detail=detail,
            started_at=now,
            **resolved,
            **program,
        )
        if started is None and resolved:
            known: dict[str, Any] = {"expecting": {"commit": None}, "detail": resolved, **resolved}
            runs.note(session, report.run, RunNote.COMMIT_RESOLVED, **expected, **known)


def _phase_finished(system: System, report: PhaseFinished) -> None:
    with system.database.read() as session:
        run = runs.get(session, report.run)
    if run.token != report.token:
        log.info("stale report dropped", run=report.run, agent=report.agent, phase=report.phase.value)
    elif run.status in EXECUTING:
        freed(system, _advance(system, run, report))
    else:
        _repeat_last_step(system, run)


def _advance(system: System, run: Run, report: PhaseFinished) -> Run | None:
    """Do what follows from the end of a phase; return the run where that ends it."""
    if report.outcome != "succeeded":
        return _end_unsuccessful(system, run, report)
    if report.phase is Phase.APPLY:
        return end(system, run, RunEvent.APPLIED, outputs=report.outputs)
    if run.kind is RunKind.PLAN or not report.changed:
        return end(system, run, RunEvent.PLAN_FINISHED, **_facts(report))
    if run.cancel_mode is not None:
        return end(system, run, RunEvent.CANCELLED, **_facts(report))
    if run.auto_apply and _is_confirmed(system, run):
        _apply_at_once(system, run, report)
        return None
    return _wait_for_confirmation(system, run, report)


def _end_unsuccessful(system: System, run: Run, report: PhaseFinished) -> Run | None:
    event, reason, error = RunEvent.FAILED, report.reason, report.error
    if report.outcome == "cancelled" and run.cancel_mode is not None:
        event, reason = RunEvent.CANCELLED, None
    elif report.outcome == "cancelled":
        reason, error = FailureReason.TIMED_OUT, error or f"Its {report.phase} took longer than it may."
    return end(system, run, event, reason=reason, error=error, **_facts(report))


def _facts(report: PhaseFinished) -> dict[str, Any]:
    """Return the columns that a plan's report sets, and the plan; an apply keeps the counts of its plan."""
    if report.phase is Phase.APPLY:
        return {}
    return {
        "changes_add": report.changes.add,
        "changes_change": report.changes.change,
        "changes_destroy": report.changes.destroy,
        "outputs": report.outputs,
        "plan": report.plan,
        **{name: said for name in ("commit", "program") if (said := getattr(report, name))},
    }


def _wait_for_confirmation(system: System, run: Run, report: PhaseFinished) -> Run | None:
    now = system.now()
    with system.database.begin() as session:
        spec, workspace = pools.get(session, run.pool), workspaces.get(session, run.workspace)
        wait = timedelta(seconds=workspace.confirm_timeout or spec.timeouts.confirm)
        until = now + wait
        updated = runs.record(
            session, run.id, RunEvent.PLANNED, expect=run.status, expect_token=run.token, now=now,
            confirm_until=until, remind_at=remind_at(until, wait), deadline=None, **_facts(report),
        )  # fmt: skip
    if updated is None:
        return None
    if (cancelled := _keep_plan(system, updated)) is not None:
        return cancelled
    deliver.announce(system, updated)
    log.info("run waits for confirmation", run=run.id, agent=run.agent, slot=run.slot, until=until.isoformat())
    return None


def _is_confirmed(system: System, run: Run) -> bool:
    """Whether its request was enough of a confirmation: its workspace may have changed since."""
    with system.database.read() as session:
        return workspaces.get(session, run.workspace).approval.is_given_by(run.actor)


def _keep_plan(system: System, run: Run) -> Run | None:
    """Reserve the slot of a run that waits; end and return one whose cancel was requested meanwhile."""
    if run.cancel_mode is not None:
        return end(system, run, RunEvent.CANCELLED)
    if run.token and run.confirm_until:
        system.slots(run.pool).reserve(run.id, run.token, run.confirm_until.timestamp())
    return None


def _apply_at_once(system: System, run: Run, report: PhaseFinished) -> None:
    """Store what the plan says, and let a control worker order the apply: it has the keys for that."""
    with system.database.begin() as session:
        facts = _facts(report)
        stored = runs.change(session, run.id, expect=run.status, expect_token=run.token, now=system.now(), **facts)
    if stored is not None:
        system.celery.send_task(names.AUTO_APPLY, args=[run.id, report.token], ignore_result=True)


def _repeat_last_step(system: System, run: Run) -> None:
    """Repeat what follows the commit: the process may have been killed between the two."""
    if run.status is RunStatus.APPLY_PENDING:
        freed(system, _keep_plan(system, run))
    elif run.status.is_over and run.token and system.slots(run.pool).release(run.id, run.token):
        request_dispatch(system, run.pool)
