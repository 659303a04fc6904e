"""Take reports of agents: a phase started, a phase ended, an agent registered or stopped.

A report counts only with the token of its run (or an agent's instance id), and may arrive twice: the agent repeats
it until the slot map shows that it was taken. Everything here is therefore safe twice, and a late report of a run
that went on without it changes nothing (F11, F26).
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, assert_never

import structlog

from workers import metrics, traces
from workers.core.confirmation import remind_at
from workers.core.lifecycle import EXECUTING, EventDetail, RunEvent, RunNote, RunStatus
from workers.protocol import names
from workers.protocol.kinds import FailureReason, Phase, RunKind
from workers.protocol.leases import Lease
from workers.protocol.messages import AgentRegistered, AgentStopped, Changes, PhaseFinished, PhaseStarted, Report
from workers.protocol.version import OLDEST_AGENT
from workers.services import worker_events
from workers.services.errors import isolate
from workers.services.pool_state import note_programs
from workers.services.runs import deliver, locks, states, task_events
from workers.services.runs.finish import end, enter_end, requeue_or_fail, settle
from workers.services.runs.wake import request_dispatch, request_start
from workers.services.system import System
from workers.slots import order_queue
from workers.specs.workspaces import WorkspaceSpec
from workers.store import plans, pools, runs, workspaces
from workers.store.database import Session
from workers.store.models import Run

log = structlog.get_logger(__name__)

PhaseReport = PhaseStarted | PhaseFinished

_STOPPED = "it stopped"
_STARTED = {
    Phase.PLAN: (RunStatus.PLANNING, RunNote.PLAN_STARTED),
    Phase.APPLY: (RunStatus.APPLYING, RunNote.APPLY_STARTED),
}


def take(system: System, report: Report, *, left: bool = False) -> None:
    """Take a report of an agent; one that it ``left`` when it died is not repeated."""
    match report:
        case AgentRegistered():
            _agent_registered(system, report)
        case AgentStopped():
            agent_gone(system, report.pool, report.agent, report.instance_id, _STOPPED)
        case PhaseStarted() | PhaseFinished():
            take_all(system, [report], left=left)
        case _:
            assert_never(report)


def take_all(system: System, reports: Sequence[PhaseReport], *, left: bool = False) -> None:
    """Take reports of phases, in their order, in one transaction; what they have changed is followed up together.

    Where that raises, all of them may be taken once more, each by itself. One whose state has not arrived yet is not
    taken: its agent repeats it, unless it was ``left``.
    """
    found = {report.token: states.arrived(system, report) for report in reports if isinstance(report, PhaseFinished)}
    reports = [each for each in reports if left or not states.is_missing(each, found.get(each.token))]
    if not reports:
        return
    told = list[tuple[Run, PhaseFinished]]()
    changed, repeated, begun, now = list[Run](), list[Run](), list[Run | None](), system.now()
    # A start alone is one guarded write.
    locks_them = len(reports) > 1 or isinstance(reports[0], PhaseFinished)
    with system.database.begin() as session:
        known = runs.lock(session, {report.run for report in reports}) if locks_them else {}
        for report in reports:
            if isinstance(report, PhaseStarted):
                begun.append(_enter_start(session, report, now))
            elif (run := known.get(report.run)) is None or run.token != report.token:
                about = {"pool": report.pool, "agent": report.agent, "phase": report.phase.value}
                log.info("stale report dropped", **({"run": report.run} if run is None else run.about) | about)
            elif run.status not in EXECUTING:
                repeated.append(run)
            elif (after := _advance(system, session, run, report, now, state=found[report.token])) is not None:
                changed.append(after)
                told.append((after, report))
    _measure(told, now)
    task_events.started(system, begun)
    _follow_up(system, changed)
    for run, report in told:
        traces.draw("report", run, now, system.now(), phase=report.phase.value)
        if run.status.is_over:
            states.entered(system, run, report)
    for run in repeated:
        _repeat_last_step(system, run)


def _measure(told: Iterable[tuple[Run, PhaseFinished]], now: datetime) -> None:
    """Tell how long each phase took, and how long its order was on its way."""
    for run, report in told:
        phase, outcome, began = report.phase.value, report.outcome, run.started_at
        if began is None:
            continue
        metrics.PHASES.add((now - began).total_seconds(), run.pool, phase, outcome)
        error = None if outcome == "succeeded" else report.reason or outcome
        traces.draw(phase, run, began, now, error=error, phase=phase, outcome=outcome)
        if run.ordered_at is not None:
            metrics.ORDERS.add((began - run.ordered_at).total_seconds(), run.pool, phase)
            traces.draw("order", run, run.ordered_at, began, phase=phase)


def _agent_registered(system: System, report: AgentRegistered) -> None:
    slots = system.slots(report.pool)
    record = slots.agent(report.agent)
    protocol = record.protocol if record else None
    log.info("agent registered", pool=report.pool, agent=report.agent, protocol=protocol)
    if protocol is not None and protocol < OLDEST_AGENT:
        slots.drain(report.agent)  # the next cycle says so, and replaces its pod
    if record is not None:
        worker_events.came(system, report.pool, record)
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
    if settled and why != _STOPPED:
        metrics.AGENTS_LOST.add(pool)
    order_queue.remove(system.broker, pool, agent)
    worker_events.gone(system, pool, agent)
    log.info("agent deregistered", pool=pool, agent=agent, why=why, leases=list(settled.values()))
    request_start(system, pool)


def _requeue_or_fail_all(system: System, leases: Iterable[Lease], why: str) -> None:
    for lease in leases:
        with isolate("run of a lost agent not requeued", run=lease.run, agent=lease.agent, slot=lease.slot):
            with system.database.read() as session:
                run = runs.get(session, lease.run)
            if run.token == lease.token and run.status.holds_slot:
                # Redis may have lost in a crash that the token was redeemed; the database was told.
                requeue_or_fail(system, run, why, may_have_started=lease.redeemed or run.started_at is not None)


def _enter_start(session: Session, report: PhaseStarted, now: datetime) -> Run | None:
    """Enter the start once; return its run, None where it was entered before.

    The agent reports again when it knows the commit, and any report may arrive twice.
    """
    status, note = _STARTED[report.phase]
    expected: dict[str, Any] = {"expect": status, "expect_token": report.token, "now": now}
    resolved: dict[str, Any] = {"commit": report.commit} if report.commit else {}
    program: dict[str, Any] = {"program": report.program} if report.program else {}
    detail: EventDetail = {
        "agent": report.agent, "commit": report.commit, "locks_as": report.locks_as, "clock": report.clock,
    }  # fmt: skip
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
    if report.plan is not None and report.changes is not None:
        untold: dict[str, Any] = {"expecting": {"changes_add": None}, **_counts(report.changes)}
        if (read := runs.note(session, report.run, RunNote.PLAN_READ, **expected, **untold)) is not None:
            plans.keep(session, read, report.plan)
    elif started is None and resolved:
        known: dict[str, Any] = {"expecting": {"commit": None}, "detail": resolved, **resolved}
        runs.note(session, report.run, RunNote.COMMIT_RESOLVED, **expected, **known)
    return started


def _advance(
    system: System, session: Session, run: Run, report: PhaseFinished, now: datetime, *, state: str | None
) -> Run | None:
    """Enter what follows; return the run, None where it has changed since: the other decision stands.

    ``state``: the one that it could not save, encrypted.
    """
    if report.outcome != "succeeded":
        return _end_unsuccessful(system, session, run, report, now, state=state)
    if report.phase is Phase.APPLY:
        return enter_end(session, run, RunEvent.APPLIED, now, outputs=report.outputs, **_facts(report))
    if run.kind is RunKind.PLAN or not report.changed:
        also = partial(states.enter, system, report=report, content=None)
        return enter_end(session, run, RunEvent.PLAN_FINISHED, now, also=also, **_facts(report))
    if run.cancel_mode is not None:
        return enter_end(session, run, RunEvent.CANCELLED, now, **_facts(report))
    workspace = workspaces.get(session, run.workspace)
    # Its request may be enough of a confirmation; its workspace may have changed since.
    if run.auto_apply and workspace.approval.is_given_by(run.actor):
        return runs.change(session, run.id, expect=run.status, expect_token=run.token, now=now, **_facts(report))
    return _await_confirmation(session, run, report, now, workspace)


def _await_confirmation(
    session: Session, run: Run, report: PhaseFinished, now: datetime, workspace: WorkspaceSpec
) -> Run | None:
    """Let a run wait for people; one that was to apply its plan by itself has not told them what it would do."""
    if report.detail_follows:
        error = f"The approval that workspace {run.workspace} requires has changed while it was planned: ask again."
        reason = FailureReason.AGENT_ERROR
        return enter_end(session, run, RunEvent.FAILED, now, reason=reason, error=error, **_facts(report))
    wait = timedelta(seconds=workspace.confirm_timeout or pools.get(session, run.pool).timeouts.confirm)
    return runs.record(
        session, run.id, RunEvent.PLANNED, expect=run.status, expect_token=run.token, now=now,
        confirm_until=now + wait, remind_at=remind_at(now + wait, wait), deadline=None, **_facts(report),
    )  # fmt: skip


def _end_unsuccessful(
    system: System, session: Session, run: Run, report: PhaseFinished, now: datetime, *, state: str | None
) -> Run | None:
    event, reason, error = RunEvent.FAILED, report.reason, report.error
    if report.outcome == "cancelled" and run.cancel_mode is not None:
        event, reason = RunEvent.CANCELLED, None
    elif report.outcome == "cancelled":
        reason, error = FailureReason.TIMED_OUT, error or f"Its {report.phase} took longer than it may."
    met = locks.met(system, session, run.workspace, report.lock) if report.lock is not None else None
    if met is not None:
        error = f"{met}\n\n{error}" if met.alive else f"{met} `terraslot unlock {run.id}` ends the lock.\n\n{error}"

    def also(session: Session, ended: Run) -> None:
        states.enter(system, session, ended, report, state)
        if met is not None:
            locks.enter(system, session, ended, met)

    return enter_end(session, run, event, now, reason=reason, error=error, also=also, **_facts(report))


def _facts(report: PhaseFinished) -> dict[str, Any]:
    """Return the columns that a report sets, and the plan; an apply keeps its plan's, unless it tells them itself."""
    if report.phase is Phase.APPLY:
        told = {} if report.plan is None else {"plan": report.plan, **_counts(report.changes)}
        return {"progress": report.progress, **told}
    counted = report.outcome == "succeeded" and not report.detail_follows  # no plan is none that changes nothing
    return {
        **_counts(report.changes if counted else None),
        "outputs": report.outputs,
        "plan": report.plan,
        **{name: said for name in ("commit", "program") if (said := getattr(report, name))},
    }


def _counts(changes: Changes | None) -> dict[str, Any]:
    names = ("add", "change", "destroy")
    return {f"changes_{name}": None if changes is None else getattr(changes, name) for name in names}


def _follow_up(system: System, changed: Sequence[Run]) -> None:
    """Do what follows the commit: free the slots of runs that have ended, keep those that wait, order applies."""
    ended = [run for run in changed if run.status.is_over]
    settle(system, ended)
    for run in changed:
        with isolate("end of a phase not followed up", **run.about):
            if run.status is RunStatus.APPLY_PENDING:
                ended += _wait_for_confirmation(system, run)
            elif run.status in EXECUTING:  # a control worker orders the apply: it has the keys for that
                system.celery.send_task(names.AUTO_APPLY, args=[run.id, run.token], ignore_result=True)
    for pool in {run.pool for run in ended}:
        request_dispatch(system, pool)


def _wait_for_confirmation(system: System, run: Run) -> list[Run]:
    """Reserve the slot of a run that waits, and say so; or end and return it: its cancel was requested meanwhile."""
    if cancelled := _keep_plan(system, run):
        return cancelled
    deliver.announce(system, run)
    log.info("run waits for confirmation", **run.about, until=f"{run.confirm_until}")
    return []


def _keep_plan(system: System, run: Run) -> list[Run]:
    if run.cancel_mode is not None:
        cancelled = end(system, run, RunEvent.CANCELLED)
        return [cancelled] if cancelled else []
    if run.token and run.confirm_until:
        system.slots(run.pool).reserve(run.id, run.token, run.confirm_until.timestamp())
    return []


def _repeat_last_step(system: System, run: Run) -> None:
    """Repeat what follows the commit: the process may have been killed between the two."""
    if run.status is RunStatus.APPLY_PENDING:
        freed = bool(_keep_plan(system, run))
    else:
        freed = run.status.is_over and bool(run.token) and system.slots(run.pool).release(run.id, run.token or "")
    if freed:
        request_dispatch(system, run.pool)
