"""States that runs could not save: stored as they come, waited for, pushed by another run, or given up.

Such a state leaves its agent encrypted with its pool's payload key, and nothing here has a key: see
:mod:`workers.services.runs.rescued`. Until somebody has decided about it, the runs that would change the state of its
workspace wait: their plans would show everything as new.
"""

from typing import Any

import structlog

from workers.core.approval import Origin
from workers.core.errors import IllegalTransition, NoRescuedState
from workers.core.lifecycle import RunNote
from workers.protocol import names
from workers.protocol.messages import PhaseFinished, PhaseStarted
from workers.protocol.states import StateStep
from workers.services.runs.wake import request_start
from workers.services.system import System
from workers.slots.state_parcel import StateParcel
from workers.store import run_queries, runs, states, workspace_queue
from workers.store.database import Session
from workers.store.models import RescuedStateRecord, Run

log = structlog.get_logger(__name__)

_UNKNOWN = Origin()


def arrived(system: System, report: PhaseFinished) -> str | None:
    """Return the state that was sent before a report; None where there is none, or not yet."""
    return StateParcel(system.redis, report.pool, report.run).take() if _sent(report) else None


def is_missing(report: PhaseStarted | PhaseFinished, content: str | None) -> bool:
    """Whether a report says that its state was sent, and that has not arrived: then it follows, with the report."""
    return isinstance(report, PhaseFinished) and _sent(report) and content is None


def enter(system: System, session: Session, run: Run, report: PhaseFinished, content: str | None) -> None:
    """Enter what a report says of the state of a run that it ends; for :func:`workers.store.runs.record`."""
    if report.rescued is not None:
        states.keep(session, run, report.rescued, content)
    step = step_of(run)
    if report.outcome != "succeeded" or step is None:
        return
    now = system.now()
    if step.push is not None and states.settle(session, step.push, run.workspace, states.PUSHED, now):
        runs.remark(session, runs.get(session, step.push), RunNote.STATE_PUSHED, now=now, detail={"by": run.id})
    if step.unlock is not None:
        for met in states.end_lock(session, run.workspace, step.unlock, now):
            runs.remark(session, runs.get(session, met), RunNote.LOCK_ENDED, now=now, detail={"by": run.id})


def entered(system: System, run: Run, report: PhaseFinished) -> None:
    """Do what follows once that is committed: nothing of a state stays on Redis, and what waited for it goes on."""
    step = step_of(run)
    if report.rescued is not None or (step is not None and step.push is not None):
        StateParcel(system.redis, run.pool, run.id).remove()
    if report.rescued is not None:
        system.celery.send_task(names.STATES, ignore_result=True)
    if step is not None and step.push is not None:
        _let_go(system, run.workspace)


def give_up(system: System, run_id: str, *, origin: Origin = _UNKNOWN) -> Run:
    """Let the runs of a workspace go on without the state that this run could not save; it stays on record with it.

    Raises :class:`NoRescuedState`, and :class:`IllegalTransition` where it was pushed, or given up before.
    """
    with system.database.begin() as session:
        run = run_queries.find(session, run_id)
        found = record(session, run)
        if not states.settle(session, run.id, run.workspace, states.GIVEN_UP, system.now()):
            session.refresh(found)
            raise IllegalTransition(f"The rescued state of run {run.id} was {found.settled_as} already.")
        runs.remark(session, run, RunNote.STATE_GIVEN_UP, now=system.now(), detail=origin.detail)
    log.warning("rescued state given up", **run.about)
    _let_go(system, run.workspace)
    return run


def push(system: System, run_id: str) -> tuple[str, StateStep]:
    """Return the workspace and the step of a run that pushes what another could not save.

    Raises :class:`NoRescuedState` where nothing of it is kept here, and :class:`IllegalTransition` where it was pushed.
    """
    run = kept(system, run_id)
    return run.workspace, StateStep(push=run.id)


def step_of(run: Run) -> StateStep | None:
    """Return what a run does to the state instead of planning."""
    found: Any = (run.options or {}).get("state")
    return StateStep.model_validate(found) if found else None


def _sent(report: PhaseFinished) -> bool:
    return report.rescued is not None and report.rescued.sent


def kept(system: System, run_id: str) -> Run:
    """Return a run whose rescued state is kept here. Raises as :func:`push` does."""
    with system.database.read() as session:
        run = run_queries.find(session, run_id)
        found = record(session, run)
        if found.settled_as == states.PUSHED:
            raise IllegalTransition(f"The rescued state of run {run.id} was pushed: its backend has it.")
        if found.content is None:
            raise NoRescuedState(
                f"The state that run {run.id} could not save stayed on its agent {run.agent}: it was too large, or the "
                f"agent had no key for it. `terraslot show {run.id}` says where it is kept there."
            )
    return run


def record(session: Session, run: Run) -> RescuedStateRecord:
    """Return the state that a run could not save. Raises :class:`NoRescuedState`."""
    found = states.of(session, run.id)
    if found is None:
        raise NoRescuedState(f"Run {run.id} has left no state: what it did is in its backend.")
    return found


def _let_go(system: System, workspace: str) -> None:
    with system.database.read() as session:
        pool = workspace_queue.runnable_in(session, workspace)
    if pool is not None:
        request_start(system, pool)
