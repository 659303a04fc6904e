"""A run as its page shows it: what happened to it, what is open to the one who looks, and what was before it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from workers.core.approval import Actor, Approval
from workers.core.errors import Unreadable
from workers.core.lifecycle import RunStatus
from workers.core.timeline import Stage, StageName, durations, timeline, waited_for
from workers.core.verdicts import Verdict, unapproved, untimely
from workers.protocol.kinds import RunKind
from workers.services.runs import locks, views, waiting
from workers.services.runs.locks import LockView
from workers.services.runs.views import RescuedView, RunBrief, RunView, shown
from workers.services.system import System
from workers.store import run_queries, runs, workspaces
from workers.store.database import Session
from workers.store.models import Run

_PREVIOUS = 5
# A shorter wait is the time that it takes to give a slot.
_A_WAIT = 1.0


@dataclass(frozen=True)
class Failure:
    """Why a run did not succeed: ``headline`` is the line of ``text`` that says it."""

    reason: str | None
    headline: str
    text: str


@dataclass(frozen=True)
class StageView:
    """A stage of a run's way; ``seconds``: how long it has lasted. See :class:`Stage` for the rest."""

    stage: StageName
    attempt: int
    begin: datetime
    end: datetime | None
    started: datetime | None
    seconds: float
    agent: str | None
    slot: int | None
    event: str
    actor: str | None
    why: str | None
    waited_for: str | None


@dataclass(frozen=True)
class Action:
    """A decision about a run: whether it is open to the one who looks, and ``why`` it is not."""

    action: Verdict
    open: bool
    why: str | None


@dataclass(frozen=True)
class RunDetails:
    """A run, with what it waits for beside a person, and what it still needs from people; None for nothing.

    ``failure`` comes first, where there is one. ``timeline``: its stages, ``phases``: the seconds in each, in all
    attempts. ``destroys``: how many resources its plan destroys, those that it replaces included. ``rescued_state``: a
    state that it could not save. ``state_lock``: the lock that it has met. ``unsaved_state``: a warning that its
    workspace's state is not what another run has made of it. ``previous``: the runs of its workspace before it.
    """

    failure: Failure | None
    run: RunView
    destroys: int
    actions: list[Action]
    approval: str | None
    timeline: list[StageView]
    phases: dict[StageName, float]
    rescued_state: RescuedView | None
    state_lock: LockView | None
    unsaved_state: str | None
    previous: list[RunBrief]


def of(system: System, run: RunView, actor: Actor | None, refusal: str | None) -> RunDetails:
    """Return what a run's page shows to ``actor``; ``refusal``: why this one may decide about no run at all."""
    run, now = waiting.with_reason(system, run), system.now()
    with system.database.read() as session:
        record = runs.get(session, run.run_id)
        happened = timeline(run_queries.events(session, run.run_id))
        previous = run_queries.recent(session, workspace=run.workspace, before=record, limit=_PREVIOUS)
        reasons = _refusals(session, run, record, actor)
        stages = [_stage(session, run, stage, now) for stage in happened]
    return RunDetails(
        failure=_failure(run),
        run=run,
        destroys=run.changes["destroy"] or 0,
        actions=[_action(verdict, why or refusal) for verdict, why in reasons.items()],
        approval=views.approval(system.database, run),
        timeline=stages,
        phases=durations(happened, now),
        rescued_state=views.rescued(system.database, run),
        state_lock=locks.shown(system, run.run_id),
        unsaved_state=views.unsaved(system.database, run),
        previous=[views.brief(each) for each in previous],
    )


def _refusals(session: Session, run: RunView, record: Run, actor: Actor | None) -> Mapping[Verdict, str | None]:
    """Return by decision why it can't be made about a run now, by the rules that hold when it is made."""
    refused = {verdict: untimely(verdict, run.run_id, run.status) for verdict in Verdict}
    why = {verdict: None if error is None else str(error) for verdict, error in refused.items()}
    if why[Verdict.CONFIRM] is None:
        why[Verdict.CONFIRM] = _unconfirmable(session, run, record, actor)
    return why


def _unconfirmable(session: Session, run: RunView, record: Run, actor: Actor | None) -> str | None:
    try:
        rules: Approval = workspaces.get(session, run.workspace).approval
    except Unreadable as error:
        return str(error)
    given = run_queries.approved_by(session, record)
    if (refusal := unapproved(rules, run.run_id, run.actor, given, actor)) is not None:
        return str(refusal)
    return run.waiting and f"Run {run.run_id} can't be confirmed now: {run.waiting}."  # for an agent that is silent


def _action(verdict: Verdict, why: str | None) -> Action:
    return Action(verdict, why is None, why)


def _stage(session: Session, run: RunView, stage: Stage, now: datetime) -> StageView:
    return shown(StageView, stage, seconds=stage.seconds(now), waited_for=_waited_for(session, run, stage, now))


def _waited_for(session: Session, run: RunView, stage: Stage, now: datetime) -> str | None:
    if stage.stage is not StageName.QUEUED or stage.seconds(now) < _A_WAIT:
        return None
    if stage.end is None:
        return run.waiting
    busy: Sequence[str] = ()
    if run.kind is RunKind.PLAN_AND_APPLY:
        busy = run_queries.ended_between(session, run.workspace, stage.begin, stage.end)
    return waited_for(busy)


def _failure(run: RunView) -> Failure | None:
    if not run.status.is_over or run.status is RunStatus.SUCCEEDED or not run.error:
        return None
    lines = [line for each in run.error.splitlines() if (line := each.strip(" │╷╵"))]
    headline = next((line for line in lines if line.startswith("Error:")), lines[0] if lines else "")
    return Failure(run.reason, headline, run.error)
